"""A scan as the gate gets it, and the codes of what it finds."""

import numpy as np

from diagnosis import gate
from scans.prepare import prepare
from scans.scan import Scan
from studies import Contract


def scan_of(voxels, affine, **facts):
    """A scan as `read` gives it, without the way over a file."""
    known = {
        "format": "test",
        "shape": list(voxels.shape),
        "affine_known": True,
        "oblique": False,
        "spacing": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
    }
    return Scan(np.asarray(voxels, np.float32), affine, "volume", known | facts)


def codes(scan, sketched):
    findings = gate.before(scan, prepare(scan, sketched.contract), sketched)
    for finding in findings:
        assert finding.text and "{" not in finding.text
    return gate.verdict(findings), {finding.code for finding in findings}


PICTURE = Contract(kind="image", shape=(96, 96), channels=3, place="squeeze", scale="unit")
