"""From cases to a weights file: the training loop and its run, transfer, scores, calibration, card and plots.

May import everything but `server` and the commands.
"""
