"""Why a network answered so: heat maps by three methods, where in the head they lie, and how far to believe them.

May import what `diagnosis` may.
"""
