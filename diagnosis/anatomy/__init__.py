"""What a prepared head's anatomy measures: its structures outlined, their volumes, and centiles among controls.

May import `studies`, `networks`, `model` and `scans`.
"""
