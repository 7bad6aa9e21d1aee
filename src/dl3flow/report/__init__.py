"""The report: one self-contained HTML page that tells an analysis from its observations to its results."""
