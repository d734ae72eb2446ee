"""A cohort's table: a row a scan, written as answers come, resumed after a crash, merged from shards.

May import what `cohorts` may, and no other part of it.
"""
