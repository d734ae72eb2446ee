"""Simulated pictures of known truth for the picture studies: slices of heads, of chests, and radiographs.

May import `studies`, `scans` and the modules of `simulation`. A study's simulator is a function
`subject(seed, label)` that yields each picture of one simulated person, 8 bits grey, with its truth.
"""
