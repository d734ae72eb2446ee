"""Planes: sides as radiologists look at them, through the strongest place."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pypdf import PdfReader

from diagnosis.diagnoser import Diagnosis
from diagnosis.maps import explain
from model import Weights
from networks.header import Header
from reports import figures, pdf
from reports.figures import slices
from reports.html import html
from scans.prepare import Prepared
from scans.scan import Scan
from studies import Contract, Label, Study
from tests.diagnoses import MADE, Reader


def test_right_is_on_the_left_and_front_on_top(diagnosis):
    axial, coronal, sagittal = figures.planes(diagnosis, None)
    for plane in (axial, coronal):
        columns = plane.grey.shape[1]
        left, right = plane.grey[:, : columns // 2], plane.grey[:, columns // 2 :]
        assert left.mean() / right.mean() == pytest.approx(3 / 2, abs=0.05)  # 2 against 1, above air at −1
        assert plane.sides == ("R", "L")
    assert sagittal.sides == ("A", "P")


def test_planes_run_through_the_strongest_place(diagnosis, found):
    axial, coronal, sagittal = figures.planes(diagnosis, found)
    # the box about the head starts 8 voxels before it: x 20…145, y 37…217, z 60…220
    heat = axial.strength
    row, column = ((heat * grid).sum() / heat.sum() for grid in np.indices(heat.shape))
    right, front = 144 + 8 - column, 216 + 8 - row
    assert abs(right - 110) <= 1 and abs(front - 120) <= 1
    for plane in (axial, coronal, sagittal):
        assert plane.strength.max() > 0.9


def test_sides_are_not_claimed_without_an_affine(diagnosis):
    unsure = replace(diagnosis, prepared=replace(diagnosis.prepared, notes=["no-affine"]))
    assert all(plane.sides == ("", "") for plane in figures.planes(unsure, None))
    assert "no sides are marked" in Reader(html(unsure, None, "en", MADE)).text


def test_slices_are_pictures(diagnosis, found):
    plain, mapped = (Image.open(io.BytesIO(part)) for part in (slices(diagnosis), slices(diagnosis, found)))
    assert plain.format == "PNG" and mapped.height == pytest.approx(2 * plain.height, abs=2)
    colours = np.asarray(mapped.convert("RGB"), int)
    assert (np.ptp(colours[: mapped.height // 2], axis=2) < 8).all()  # above, the scan in grey alone
    assert (np.ptp(colours[mapped.height // 2 :], axis=2) > 80).any()  # below, the map in colour


def test_an_image_study_has_one_picture_and_no_sides():
    contract = Contract(kind="image", shape=(60, 80), channels=3)
    labels = (Label("no", "nothing"), Label("yes", "something"))
    study = Study("made", "Made up", "?", labels, contract, "X", ("X",), "A test.")
    weights = Weights("made.safetensors", "0" * 64, Header(study, "X"), torch.nn.Identity(), torch.device("cpu"))
    tensor = torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0))
    prepared = Prepared(tensor, np.eye(4), torch.ones(60, 80, dtype=torch.bool), np.eye(4), [], {})
    scan = Scan(tensor[0].numpy(), np.eye(4), "image", {"format": "PNG", "shape": [60, 80]})
    made = Diagnosis(
        file="x.png",
        weights=weights,
        label="yes",
        probabilities={"no": 0.3, "yes": 0.7},
        set=["yes"],
        level=0.9,
        findings=(),
        judged_anyway=False,
        seconds={"predict": 0.1},
        scan=scan,
        prepared=prepared,
    )
    values = np.zeros((60, 80), np.float32)
    values[10:20, 60:70] = 1
    found = explain.Map(values, "grad-cam", "yes", 1.0)
    [plane] = figures.planes(made, found)
    assert plane.sides == ("", "") and plane.strength[15, 65] == 1
    text = Reader(html(made, found, "en", MADE)).text
    assert "Radiological" not in text and "hippocampal" not in text and "Expected severity" not in text
    assert len(PdfReader(io.BytesIO(pdf.pdf(made, found, "en", MADE))).pages) == 2
