"""From cases to a weights file: settings, the training loop and its run, transfer and sweeps.

May import everything but `server` and the commands.
"""
