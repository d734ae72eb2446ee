"""From a prepared scan to a `Diagnosis`: is it fit to be judged, what does the network say, and why.

May import `studies`, `networks`, `model` and `scans`.
"""
