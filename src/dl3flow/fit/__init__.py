"""DL4 to fit: predicted counts, likelihood, minimisation."""
