"""Everything that needs Ray: the only folder that imports it."""
