"""DICOM: a zip of a series or a single file, its pixels decoded, its slices assembled into a volume.

May import what `scans` may, and `scans` itself but for what reads other formats.
"""
