"""The Structured Report: read back by highdicom's template and by DCMTK, number by number."""

import io
import re
import subprocess
from dataclasses import replace

import highdicom
import pydicom
import pytest

from archive.results import to_bytes
from archive.structured_report import structured_report
from diagnosis import gate
from diagnosis.anatomy.measures import Value
from studies import NOTICE
from tests import orthanc
from tests.archive.conftest import AT


@pytest.fixture(scope="module")
def report(judged):
    read = pydicom.dcmread(io.BytesIO(to_bytes(structured_report(judged.diagnosis, AT))))
    return highdicom.sr.Comprehensive3DSR.from_dataset(read)


def groups(report):
    return report.content.get_image_measurement_groups()


def numbers(group) -> dict[str, tuple[float, str]]:
    return {one.name.meaning: (one.value, one.unit.value) for one in group.get_measurements()}


def texts(item) -> list[str]:
    found = [item.TextValue] if item.get("ValueType") == "TEXT" else []
    return found + [text for inner in item.get("ContentSequence", ()) for text in texts(inner)]


def test_class_set_and_probabilities_are_those_of_the_diagnosis(judged, report):
    (group,) = groups(report)
    said = [(one.name.value, one.value.value) for one in group.get_qualitative_evaluations()]
    assert ("class", f"alzheimers:{judged.diagnosis.label}") in said and ("fitness", "unfit") in said
    assert [value for name, value in said if name == "set"] == [f"alzheimers:{c}" for c in judged.diagnosis.set]
    found = numbers(group)
    for code, chance in judged.diagnosis.probabilities.items():
        assert found[f"Probability of {code}"] == (pytest.approx(chance), "1")
    assert found["Expected severity, 0 to 1"][0] == pytest.approx(judged.diagnosis.severity)


def test_an_interval_is_told_as_the_way_to_its_ends(judged, report):
    chances, intervals = judged.diagnosis.probabilities, judged.diagnosis.intervals
    for one in groups(report)[0].get_measurements():
        code = one.name.meaning.removeprefix("Probability of ")
        if code in intervals:
            ends = {
                item.name.value: float(item.MeasuredValueSequence[0].NumericValue)
                for item in one[0].ContentSequence
                if item.name.value in ("371886008", "371885007")
            }
            low, high = intervals[code]
            assert ends["371885007"] == pytest.approx(chances[code] - low, abs=1e-6)
            assert ends["371886008"] == pytest.approx(high - chances[code], abs=1e-6)


def test_gate_and_notice_stand_in_words_and_the_weights_by_their_hash(judged, report):
    said = texts(report)
    assert NOTICE in said and all(finding.text in said for finding in judged.diagnosis.findings)
    assert f"sha256 {judged.diagnosis.weights.sha256}" in said
    assert "The class was asked for, whatever the gate says." in said


def test_the_source_images_are_named_as_evidence(judged, report):
    named = {uids[2] for uids in report.get_evidence()}
    assert named == {str(image.SOPInstanceUID) for image in judged.images}
    assert {uids[3] for uids in report.get_evidence()} == {judged.images[0].SOPClassUID}


def test_a_scan_without_a_class_says_so(judged):
    findings = (gate.Finding(gate.UNFIT, "no-affine"),)
    bare = {"label": None, "probabilities": None, "set": None, "intervals": None, "judged_anyway": False}
    made = structured_report(replace(judged.diagnosis, findings=findings, **bare), AT)
    (group,) = groups(highdicom.sr.Comprehensive3DSR.from_dataset(made))
    said = [(one.name.value, one.value.value) for one in group.get_qualitative_evaluations()]
    assert said == [("fitness", "unfit")] and group.get_measurements() == []


def test_measures_have_units_sides_and_ranges(judged):
    measures = {"hippocampus_left": Value(3.25, "ml", 3.0, 3.75), "evans": Value(0.28, "ratio", 0.26, 0.3)}
    diagnosis = replace(judged.diagnosis, measures=measures)
    made = highdicom.sr.Comprehensive3DSR.from_dataset(structured_report(diagnosis, AT))
    _, group = groups(made)
    assert numbers(group) == {"Hippocampus, left": (3.25, "mL"), "Evans index": (0.28, "{ratio}")}
    left = group.get_measurements()[0]
    assert left.finding_sites[0].value.value == "5366008" and left.finding_sites[0].laterality.value == "7771000"
    ends = [item for item in left[0].ContentSequence if item.name.value in ("371886008", "371885007")]
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in ends] == [0.5, 0.25]
    units = {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for item in ends}
    assert units == {"mL"}


def test_dcmtk_reads_it(judged, tmp_path):
    program = orthanc.tool("dsrdump")
    (tmp_path / "report.dcm").write_bytes(to_bytes(structured_report(judged.diagnosis, AT)))
    done = subprocess.run(
        [program, "+U8", "+Pl", tmp_path / "report.dcm"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Comprehensive 3D SR Document" in done.stdout and "error" not in done.stderr.lower()
    chance = judged.diagnosis.probabilities["AD"]
    found = re.search(r'Probability of AD"\)="([\d.e+-]+)" \(1,UCUM', done.stdout)
    assert float(found[1]) == pytest.approx(chance, rel=1e-6)
