"""What a person reads: a run read back from its files, in sentences, plots and a page."""
