"""From labelled files to cases: found, split by subject, checked for leaks, kept prepared, augmented, fetched.

May import `studies`, `networks`, `model` and `scans`.
"""
