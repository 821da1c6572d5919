"""Decisions of people about suspects: the file that they live in, and how it is read."""
