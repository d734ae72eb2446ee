"""From a `Diagnosis` to words and pictures for a person: figures, HTML, PDF, and every phrase and number in them.

May import `diagnosis` and what that may import.
"""
