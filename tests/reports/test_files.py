"""The report's files in a folder."""

import json
from dataclasses import replace

from pypdf import PdfReader

from reports.files import write


def test_write_leaves_four_files_and_no_path_in_them(diagnosis, found, tmp_path):
    named = replace(diagnosis, file="head.nii.gz")
    paths = write(named, found, tmp_path / "secret-folder" / "reports", "en")
    assert [path.suffix for path in paths] == [".html", ".pdf", ".json", ".png"]
    assert {path.name.removesuffix(path.suffix) for path in paths} == {"head.nii.gz"}
    pdf = PdfReader(paths[1])
    texts = [path.read_bytes() for path in paths] + [page.extract_text().encode() for page in pdf.pages]
    assert all(b"secret-folder" not in text for text in [*texts, str(pdf.metadata).encode()])
    assert json.loads(paths[2].read_text())["label"] == "AD"


def test_a_second_scan_of_a_name_gets_a_number(diagnosis, tmp_path):
    named = replace(diagnosis, file="head.nii.gz")
    first = write(named, None, tmp_path)
    before = [path.read_bytes() for path in first]
    second = write(named, None, tmp_path, "zh")
    assert [path.name for path in second] == [f"head.nii.gz-2{path.suffix}" for path in first]
    assert [path.read_bytes() for path in first] == before
    second[1].unlink()  # half a report is still somebody's
    assert write(named, None, tmp_path)[0].name == "head.nii.gz-3.html"
