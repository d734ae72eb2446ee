"""The tornado application around the `Diagnoser`: page, HTTP API, uploads, queue. No science in it.

May import everything but the commands.
"""
