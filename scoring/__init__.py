"""From a network's answers on labelled scans to its scores: predictions, calibration, plots, card and files.

May import everything but `learning`, `server` and the commands.
"""
