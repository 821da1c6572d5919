"""From values to a cleaned training set, and whether it is better."""
