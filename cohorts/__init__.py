"""From a long list of scans to a table: what to judge, the pool that judges it, results that outlive a crash.

May import `reports`, `data` and what those may import.
"""
