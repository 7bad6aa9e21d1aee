"""What several steps read in the same way."""
