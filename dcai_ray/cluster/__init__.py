"""Everything that needs Ray; no other folder imports it.

Scheduling decisions are in `ledger`, which does not import Ray itself.
"""
