"""A diagnosis as DICOM objects for an archive: structured report, PDF, capture, heat map, outlines.

May import `reports`, `diagnosis` and what these may import. highdicom takes a second to import, so only who makes
such an object imports these modules.
"""
