"""Studies of one's own: fewer classes, gathered ones, a number, a file; each mistake told in words."""

import json
from pathlib import Path

import pytest

from data.cases import find
from data.study_file import FIELDS, chosen, gathered, of_number, pairs, schema, study_of
from data.tables import DataError
from studies import STUDIES, from_record, to_record
from tests.labelled import empty, table
from tests.support import ROOT

FILE = """
title: Three degrees
classes:
  - {code: none, name: nothing to see, severity: 0}
  - {code: some, severity: 0.5}
  - {code: much, name: a lot, severity: 1}
contract: {kind: image, shape: [64, 48], channels: 1, place: squeeze, scale: unit}
network: SliceCNN
training: {epochs: 3, lr: 0.01}
map: {nothing: none}
"""


def written(folder: Path, text: str, name: str = "my-study.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_study_from_a_file(tmp_path):
    study = study_of(written(tmp_path, FILE))
    assert (study.key, study.title, study.codes) == ("my-study", "Three degrees", ["none", "some", "much"])
    assert [label.name for label in study.labels] == ["nothing to see", "some", "a lot"]
    assert study.ordered and study.network == study.networks[0] == "SliceCNN"
    assert study.contract.shape == (64, 48) and study.contract.scale == "unit"
    assert study.training["epochs"] == 3 and study.question == "Which of none, some, much?"
    assert study.aliases == {"nothing": "none"}
    assert from_record(json.loads(json.dumps(to_record(study)))) == study
    said = {"classes": [{"code": "a"}, {"code": "b"}], "key": "short"}
    plain = study_of(written(tmp_path, json.dumps(said), "s.json"))
    assert plain.key == "short" and plain.contract == STUDIES["alzheimers"].contract


def test_a_number_from_a_file(tmp_path):
    study = study_of(written(tmp_path, "target: {name: age, unit: months}\ntitle: Infants\nlike: brain-tumour"))
    assert study.codes == ["age"] and study.target.unit == "months" and study.title == "Infants"
    assert study.contract == STUDIES["brain-tumour"].contract and not study.ordered


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour: red", "no field is called colour; there are key, title"),
        ("title: x", "give either `classes` or `target`"),
        ("classes: [{code: a}]", "classes is .* must be a list of 2 to 1000 entries"),
        ("classes: [{code: a}, {name: b}]", r"classes\[1\] lacks 'code'"),
        ("classes: [{code: a}, {code: a}]", "name a code twice: a, a"),
        ("classes: [{code: a, hue: 1}, {code: b}]", r"classes\[0\] has hue; known are code, name, severity"),
        ("classes: [{code: a, severity: 7}, {code: b}]", "severity is 7, and must be a finite number from 0 to 1"),
        ("classes: [{code: a}, {code: b}]\ncontract: {shape: [8, 8]}", "contract.shape is .* must be 3 sizes"),
        ("classes: [{code: a}, {code: b}]\ncontract: {size: 8}", "contract has size; known are anchor, channels"),
        ("classes: [{code: a}, {code: b}]\nlike: astrology", "like is 'astrology'; there are alzheimers"),
        ("classes: [{code: a}, {code: b}]\nkey: ../up", "key is '../up'; use letters"),
        ("- 1", "holds no table"),
        ("title: [", "cannot be made out"),
        ("title: 2026-01-01", "cannot be made out"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_words(tmp_path, text, words):
    with pytest.raises(DataError, match=f"my-study.yaml: .*{words}"):
        study_of(written(tmp_path, text))


def test_what_is_not_there_or_no_study(tmp_path):
    with pytest.raises(DataError, match=r"--study tarot: there are alzheimers, .* ends in \.yaml"):
        study_of("tarot")
    with pytest.raises(DataError, match="no such file"):
        study_of(str(tmp_path / "none.yaml"))
    with pytest.raises(DataError, match="cannot be made out"):
        study_of(written(tmp_path, '{"title": NaN}', "s.json"))


def test_fewer_classes_leave_their_cases_out(tmp_path):
    study = study_of("alzheimers", ["AD", "CN"])
    assert study.codes == ["AD", "CN"] and study.title.endswith("(AD, CN)")
    empty(tmp_path, "AD/a.nii", "CN/b.nii", "MCI/c.nii", "test/LMCI/d.nii")
    assert [case.label for case in find(tmp_path, study)] == ["AD", "CN"]
    empty(tmp_path, "Other/e.nii")
    with pytest.raises(DataError, match="no class is named Other; the classes of alzheimers are AD, CN"):
        find(tmp_path, study)


def test_labels_that_mean_a_class(tmp_path):
    study = study_of("alzheimers", ["CN", "MCI"], pairs("NC=CN, EMCI=MCI,LMCI=MCI"))
    assert study.codes == ["CN", "MCI"]
    empty(tmp_path, *(f"{name}.nii" for name in "abcde"))
    rows = zip("abcde", ("nc", "EMCI", "LMCI", "AD", "CN"), strict=True)
    named = table(tmp_path / "t.csv", "file,label\n" + "".join(f"{name}.nii,{label}\n" for name, label in rows))
    assert [case.label for case in find(named, study)] == ["CN", "MCI", "MCI", "CN"]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: chosen(s, ["AD"]), "--classes AD: name two or more of AD, CN, MCI"),
        (lambda s: chosen(s, ["AD", "AD"]), "each once"),
        (lambda s: chosen(s, ["AD", "XX"]), "--classes AD,XX"),
        (lambda s: gathered(s, {"NC": "XX"}), "--map NC=XX: the classes of alzheimers are AD"),
        (lambda s: gathered(s, {"EMCI": "MCI", "MCI": "CN"}), "MCI is itself to mean CN"),
        (lambda s: pairs("NC"), "--map NC: give labels and what they mean"),
        (lambda s: pairs("NC=CN,NC=AD"), "give labels and what they mean"),
        (lambda s: study_of("alzheimers", ["AD", "CN"], None, "age"), "takes the place of the classes"),
    ],
)
def test_classes_that_cannot_be_are_refused(ask, words):
    with pytest.raises(DataError, match=words):
        ask(STUDIES["alzheimers"])


def test_a_number_takes_a_table_with_numbers(tmp_path):
    study = of_number(STUDIES["alzheimers"], "age")
    assert (study.key, study.codes, study.target.unit) == ("alzheimers-age", ["age"], "years")
    assert "severity_weight" not in study.training
    empty(tmp_path, "AD/a.nii", "AD/b.nii")
    with pytest.raises(DataError, match="folders have no numbers; give a table with the columns file and age"):
        find(tmp_path, study)
    named = table(tmp_path / "t.csv", "file,Age\nAD/a.nii,71.5\nAD/b.nii,68\n")
    assert [case.label for case in find(named, study)] == ["71.5", "68"]
    named = table(tmp_path / "t.csv", "file,age\nAD/a.nii,71.5\nAD/b.nii,old\n")
    with pytest.raises(DataError, match=r"no numbers: 'old' \(1\); alzheimers-age learns age"):
        find(named, study)


def test_the_schema_in_the_documents_is_the_code_s():
    assert json.loads((ROOT / "docs" / "study.schema.json").read_text(encoding="utf-8")) == schema()
    assert set(schema()["properties"]) == set(FIELDS)
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    for name, (_, meaning) in FIELDS.items():
        assert f"| `{name}` | {meaning} |" in page
