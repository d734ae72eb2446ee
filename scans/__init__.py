"""From a file to a tensor: reading a scan, and preparing it on the grid of a study's input contract.

May import `studies`. What reads (`read` and the formats) does without torch; what prepares needs it.
"""
