"""Simulated scans whose truth is known: heads with atrophy of chosen severity on the ICBM 152 anatomy.

May import `scans`, `networks` and `studies`; needs nilearn for its template. `pictures` holds what is
drawn for the picture studies.
"""
