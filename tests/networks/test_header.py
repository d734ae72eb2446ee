"""The weights file's header: from its JSON document and back, and what it answers for every reader alike."""

import json
from dataclasses import replace

import pytest

import model
from networks.base import WeightsError
from networks.header import Header, from_document
from studies import STUDIES
from tests.support import ROOT

STUDY = STUDIES["alzheimers"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "weights").glob("alzheimers.*.safetensors")), ids=lambda path: path.name
)
def test_a_bundled_document_is_read_and_written_without_loss(path):
    document = model.read_record(path)
    header = from_document(document, path.name)
    assert json.loads(json.dumps(header.record())) == document
    assert header.temperature == document["calibration"]["temperature"] and header.calibrated
    assert header.title == document["title"] and header.metrics == document["scores"]["metrics"]
    training = document["training"]
    own = {*training["subject_hashes"]["train"], *training["subject_hashes"]["val"]}
    assert header.learned_from[training["subject_salt"]] == own
    assert header.learned_from.keys() == {training["subject_salt"], *training["earlier_hashes"]}


def test_a_bare_header_answers_with_what_holds_without_training():
    header = Header(STUDY, "ClassificationModel3D")
    assert (header.title, header.temperature, header.scaled, header.calibrated) == (STUDY.title, 1.0, False, False)
    assert header.metrics == {} and header.learned_from == {} and header.conformal_scores == []
    assert not {"scores", "calibration", "card"} & set(header.record())


def test_keys_of_another_version_are_kept():
    document = Header(STUDY, "ClassificationModel3D").record() | {"mood": {"level": 3}}
    assert from_document(document, "a").record() == document


@pytest.mark.parametrize("missing", ["study", "contract", "contract_hash", "network"])
def test_a_document_that_lacks_a_part_is_refused_by_name(missing):
    document = Header(STUDY, "ClassificationModel3D").record()
    del document[missing]
    with pytest.raises(WeightsError, match=f"a.safetensors: its header lacks or misspells '{missing}'"):
        from_document(document, "a.safetensors")


def test_a_changed_contract_is_refused():
    changed = Header(replace(STUDY, contract=replace(STUDY.contract, planes=9)), "ClassificationModel3D").record()
    document = Header(STUDY, "ClassificationModel3D").record() | {"contract": changed["contract"]}
    with pytest.raises(WeightsError, match="must agree"):
        from_document(document, "a.safetensors")
