"""From values to a cleaned training set, and to what cleaning gained."""
