"""Predictions: what the network says, case by case; files that cannot be read on the way."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from PIL import Image

import model
from data.cache import Cache
from data.cases import Case, find
from data.tables import DataError
from diagnosis import likeness
from scans.prepare import prepare
from scans.read import read
from scoring import predictions
from scoring.predictions import predict, readable
from studies import STUDIES
from tests.scored import STUDY, brightest, cohort


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_bad_file_in_a_hundred_is_left_out_and_two_are_too_many(tmp_path, capsys, bad):
    good = tmp_path / "good.png"
    Image.effect_noise((32, 32), 80).save(good)
    (tmp_path / "bad.png").write_bytes(b"nothing of a picture")
    files = [tmp_path / "bad.png"] * bad + [good] * (100 - bad)
    cases = [Case(file, "no", str(number)) for number, file in enumerate(files)]
    cache = Cache(tmp_path / "cache", STUDIES["brain-tumour"].contract)
    if bad > 1:
        with pytest.raises(DataError, match="2 of 100 files cannot be read, more than 1%"):
            readable(cases, cache, 0)
        return
    assert readable(cases, cache, 0) == cases[bad:]
    assert ("1 of 100 files cannot be read and are left out" in capsys.readouterr().err) == (bad == 1)


def test_predictions_are_the_network_s_case_by_case(tmp_path, monkeypatch):
    weights = model.load(brightest(tmp_path, monkeypatch), "cpu")
    cases = find(cohort(tmp_path / "data", 2), STUDY)
    found = predict(weights, cases, batch=5)
    values = np.stack([nibabel.load(case.file).get_fdata().ravel() for case in cases])
    assert found.files == [case.file.as_posix() for case in cases] and found.subjects[:2] == ["sub-000"] * 2
    assert found.labels == [case.label for case in cases] and found.sketches is None
    assert found.splits == [""] * 12 and found.groups == [{}] * 12
    some = found.take([3, 0])
    assert some.files == [found.files[3], found.files[0]] and some.sketches is None
    np.testing.assert_array_equal(some.logits, found.logits[[3, 0]])
    np.testing.assert_allclose(found.features, np.stack([values.mean(1), values.max(1)], 1), rtol=1e-5)
    np.testing.assert_allclose(found.logits, -4 * (values.mean(1)[:, None] - (1, 2, 3)) ** 2, atol=1e-4)
    monkeypatch.setattr(likeness, "sketch", lambda tensor, contract: tensor[0].mean())
    asked = predict(weights, cases, sketches=True)
    np.testing.assert_allclose(asked.sketches, values.mean(1), rtol=1e-3)  # kept with half the digits


def test_sketches_beside_outlines_are_of_whole_heads_and_of_as_many_as_a_mean_needs(tmp_path, monkeypatch):
    weights = model.load(brightest(tmp_path, monkeypatch), "cpu")
    contract = replace(weights.contract, scale="structures")
    outlined = replace(weights, header=replace(weights.header, study=replace(weights.study, contract=contract)))
    cases = find(cohort(tmp_path / "data", 2), STUDY)
    monkeypatch.setattr(likeness, "sketch", lambda tensor, contract: tensor[0].mean())
    monkeypatch.setattr(predictions, "MOST_SKETCHED", 5)
    cache = Cache(tmp_path / "cache", weights.contract)
    found = predict(outlined, cases, cache, sketches=True)
    whole = [float(prepare(read(case.file), contract).tensor.mean()) for case in cases]
    np.testing.assert_allclose(found.sketches, whole[::3], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.logits, predict(weights, cases, cache).logits)
