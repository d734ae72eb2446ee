"""Folders of DICOM files: what lies in them, which series is read, and which folders are a scan each.

May import `scans.origin`, `scans.scan` and its own modules; no header is parsed here.
"""
