"""Memory that a process keeps."""

import platform
import subprocess
import sys

import pytest

from tests.support import ROOT

TAKEN_TWICE = """
import resource
import torch
from networks.memory import keep_memory
{before}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = torch.ones(12_000_000)
del first
begun = faults()
second = torch.ones(10_000_000)
print(faults() - begun)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc does as it does")
def test_memory_is_kept_for_the_next_scan():
    pages = {}
    for before in ("", "keep_memory()"):
        code = TAKEN_TWICE.format(before=before)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        pages[before] = int(done.stdout)
    assert pages[""] > 5000 and pages["keep_memory()"] < 500, pages  # 40 MB are some 9,800 pages
