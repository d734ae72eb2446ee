"""The bound on what a reader holds: it follows what is declared, and elsewhere there is none."""

import os
import subprocess
import sys

import numpy as np
import pytest

from scans import memory
from tests.support import ROOT


def inside(code: str) -> str:
    """What some lines print that run as a reader does, after a file of a thousand bytes was begun."""
    begin = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from scans import memory; import numpy as np\n"
    begin += "memory.BUDGET.begin(1000)\n"
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=True).stdout


def test_only_what_is_declared_can_be_had():
    said = inside("""
def possible(size):
    try:
        return bool(np.ones(size, np.uint8)[-1])
    except MemoryError:
        return False
print(possible(memory.SLACK // 2), possible(2 * memory.SLACK))
memory.grow(2 * memory.SLACK)
print(possible(2 * memory.SLACK), possible(4 * memory.SLACK))
memory.grow(1 << 50)
print(possible(memory.MOST + (1 << 30)))
""")
    assert said.split() == ["True", "False", "True", "False", "False"]


def test_each_file_begins_anew():
    said = inside("""
import resource
first = resource.getrlimit(resource.RLIMIT_AS)[0]
memory.grow(1 << 28)
more = resource.getrlimit(resource.RLIMIT_AS)[0]
memory.BUDGET.begin(1000)
print(more - first, resource.getrlimit(resource.RLIMIT_AS)[0] - first)
""")
    assert said.split() == [str(1 << 28), "0"]


def test_a_reader_s_voxels_lie_where_another_process_can_map_them():
    said = inside("""
import mmap, os
voxels = memory.empty((3, 4, 5), np.dtype("i2"), "F")
voxels[:] = np.arange(60).reshape(3, 4, 5)
descriptor = memory.BUDGET.blocks[memory.address(voxels)]
there = np.frombuffer(mmap.mmap(descriptor, 120), "i2").reshape(3, 4, 5, order="F")
print(there[2, 3, 4], len(memory.BUDGET.blocks))
memory.BUDGET.end()
print(len(memory.BUDGET.blocks), voxels[2, 3, 4])
""")
    assert said.split() == ["59", "1", "0", "59"]


def test_elsewhere_nothing_is_limited():
    voxels = memory.empty((3, 4, 5), np.dtype("f4"))
    memory.grow(-(1 << 40))
    assert voxels.shape == (3, 4, 5) and voxels.flags.writeable and memory.BUDGET.blocks == {}


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_are_all_of_it_and_no_copy(order):
    values = np.asarray(np.arange(60.0).reshape(3, 4, 5), order=order)
    for part in memory.parts(values, 7):
        assert len(part) <= 7
        part += 1
    np.testing.assert_array_equal(values, np.arange(60.0).reshape(3, 4, 5) + 1)


def test_a_block_has_no_name():
    descriptor = memory.anonymous(5000)
    assert os.fstat(descriptor).st_size == 5000 and os.fstat(descriptor).st_nlink == 0
    os.close(descriptor)
