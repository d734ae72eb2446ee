"""What passes through a network take of memory, kept by the process from one to the next."""

import ctypes
import os

# What mallopt is told, by its numbers in glibc's malloc.h: take no block from the system by itself, give none back
# below so many bytes, take so many more than asked, and let all threads share one heap.
KEEPING = {-4: 0, -1: 1 << 30, -2: 64 << 20, -8: 1}


def keep_memory() -> None:
    """Have this process keep what a scan took of memory: to take it anew each time costs a fifth of the time.

    Where malloc is glibc's; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for number, value in KEEPING.items():
            mallopt(number, value)
