"""Neural networks: the only folder that imports torch."""
