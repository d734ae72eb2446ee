"""The networks beside `model.ClassificationModel3D`, what all networks offer, and the fast ways through them.

May import `studies`; knows nothing of files, scans or people.
"""
