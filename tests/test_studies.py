"""Every study: complete, in order, and the same after a trip through a weights file."""

import dataclasses
import json

import pytest

from studies import STUDIES, from_record, to_record


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_survives_json(study):
    assert from_record(json.loads(json.dumps(to_record(study)))) == study


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_is_complete(study):
    assert study.key in STUDIES and study.title and study.question and study.use
    assert len(set(study.codes)) == len(study.codes) >= 2
    assert study.network in study.networks
    assert len(study.contract.shape) == {"volume": 3, "image": 2}[study.contract.kind]


def test_alzheimers_keeps_the_published_order_of_outputs():
    study = STUDIES["alzheimers"]
    assert study.codes == ["AD", "CN", "MCI", "EMCI", "LMCI"]
    assert study.by_severity == ["CN", "EMCI", "MCI", "LMCI", "AD"]
    assert study.contract.shape == (166, 256, 256)
    assert study.contract.spacing == (1.2, 1.0, 1.0)


def test_the_contract_hash_changes_with_every_field():
    contract = STUDIES["alzheimers"].contract
    changed = [
        dataclasses.replace(contract, **{name: value})
        for name, value in [
            ("shape", (1, 2, 3)),
            ("spacing", (1.0, 1.0, 1.0)),
            ("place", "fill"),
            ("scale", "stored"),
            ("anchor", (0.1, 0.2, 0.3)),
            ("planes", 5),
            ("channels", 3),
        ]
    ]
    hashes = {each.hash() for each in [contract, *changed]}
    assert len(hashes) == 1 + len(changed)
    assert contract.hash() == dataclasses.replace(contract).hash()


def test_an_unknown_field_is_refused():
    record = to_record(STUDIES["alzheimers"])
    with pytest.raises(TypeError, match="colour"):
        from_record(record | {"colour": "red"})
