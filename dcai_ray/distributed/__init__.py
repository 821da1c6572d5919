"""The steps on Ray: the only rooms that import it, with no arithmetic of their own."""
