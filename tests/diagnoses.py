"""A diagnosis made by hand, whose every number a report must show."""

from datetime import datetime, timezone
from html.parser import HTMLParser

import numpy as np

from diagnosis.anatomy.segment import SHAPE
from networks.segmenter import CLASSES

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)
CHANCES = {"AD": 0.55, "CN": 0.15, "MCI": 0.05, "EMCI": 0.05, "LMCI": 0.2}
HEADER = {
    "title": "A made-up network",
    "training": {"data": "made-up heads", "counts": {"name": "made-up heads", "scans": 99, "people": 88}},
    "scores": {
        "cohort": "made-up test heads",
        "subjects": 77,
        "metrics": {
            "accuracy": {"value": 0.81, "low": 0.7, "high": 0.9},
            "kappa": {"value": None, "low": None, "high": None},
        },
    },
    "calibration": {"temperature": 1.2, "cohort": "made-up heads", "subjects": 41, "scores": [0.1, 0.2]},
}


def head() -> np.ndarray:
    """Half a head is brighter: x grows to the patient's right, and the right half is the bright one."""
    x, y, z = np.ogrid[:166, :256, :256]
    egg = ((x - 82) * 1.2 / 75) ** 2 + ((y - 127) / 90) ** 2 + ((z - 140) / 80) ** 2 < 1
    return np.where(egg, np.where(x > 82, 2.0, 1.0), -1.0).astype(np.float32)


def brain_of_boxes() -> np.ndarray:
    """Classes in the segmenter's box for that head: an egg of white matter, boxes in it; y grows forward."""
    x, y, z = np.ogrid[tuple(slice(n) for n in SHAPE)]
    egg = ((x - 71) * 1.2 / 62) ** 2 + ((y - 107) / 78) ** 2 + ((z - 100) / 66) ** 2 < 1
    classes = np.where(egg, CLASSES.index("white"), 0).astype(np.uint8)
    for name, right, height in (
        ("lateral", slice(74, 84), slice(105, 120)),
        ("hippocampus", slice(84, 100), slice(78, 88)),
    ):
        classes[right, 80:120, height] = CLASSES.index(name)
        left = slice(143 - right.stop + (4 if name == "hippocampus" else 0), 143 - right.start)
        classes[left, 80:120, height] = CLASSES.index(name)
    return classes


class Reader(HTMLParser):
    """The text of a page, and every address that it names."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.addresses, self.open = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        naming = ("src", "href", "action", "data", "srcset")
        self.addresses += [value for name, value in attributes if name in naming]

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data + "\n"

    def handle_endtag(self, tag):
        self.open = self.open[: len(self.open) - 1 - self.open[::-1].index(tag)]
