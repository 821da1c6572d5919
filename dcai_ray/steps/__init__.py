"""The pipeline, one file per step: it reads what the steps before wrote, and writes its own."""
