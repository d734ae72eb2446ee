"""A node in the hospital's network: receives studies by DICOM, has them judged, sends the results to the archive.

May import what `archive` may, and `archive` itself. pynetdicom and dicomweb-client are imported here alone.
"""
