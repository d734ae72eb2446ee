"""The page: a visitor's session, and what its templates show of a result.

May import what `server` may, and `server` itself.
"""
