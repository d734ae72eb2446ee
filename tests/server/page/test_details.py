"""The details of a result: the file's own facts, and nobody's scores but the weights file's."""

from pathlib import Path

from reports.wording import Texts
from server.page.details import details
from server.state import Result, Upload


def test_four_lists_say_what_was_read_how_long_it_took_and_who_judged(diagnosis):
    upload = Upload(Path("x"), "head.nii.gz")
    result = Result("r", upload, diagnosis.weights.name, diagnosis.record(), facts=dict(diagnosis.scan.facts))
    told = dict(details(Texts("en"), result, diagnosis.weights))
    (scan, prepared, seconds, network) = (dict(rows) for rows in told.values())
    assert diagnosis.file in scan.values()  # as the record names it
    assert "166 × 256 × 256" in scan.values() and "1.2 × 1 × 1 mm" in scan.values() and "RAS" in scan.values()
    assert "166 × 256 × 256 · 1.2 × 1 × 1 mm" in prepared.values()
    assert list(seconds.values())[:2] == ["0.25 s", "0.50 s"] and "0.75 s" in seconds.values()
    assert "abababababababab…" in network.values() and network["Computed in"] == "fp32"
    assert "made-up test heads · 77" in network.values()
    assert any("0.81" in value or "81" in value for value in network.values())


def test_an_example_does_not_pass_for_a_file_of_the_visitor(diagnosis):
    ours = Result("r", Upload(Path("x"), "head.nii.gz", ours=False), "w", diagnosis.record())
    rows = dict(details(Texts("en"), ours, diagnosis.weights)[0][1])
    assert diagnosis.file not in rows.values()
