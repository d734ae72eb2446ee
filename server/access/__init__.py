"""Who may come in, and how much one client may take: host names, sign-in, connections.

May import what `server` may, and no other part of it.
"""
