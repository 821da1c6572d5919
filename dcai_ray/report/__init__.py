"""The report: a run read back from its files, as sentences, plots and a page."""
