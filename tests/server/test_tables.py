"""Several results together: sorted and filtered on the page, taken away as CSV and as one zip of reports."""

import csv
import io
import re
import zipfile
from pathlib import Path

from tests import heads
from tests.asking import ask
from tests.browser import Open, send
from tests.support import Server, phantom, save_nifti


def names(page) -> list[str]:
    return page.eval_on_selector_all(
        ".many tbody tr:not([hidden]) .file", "all => all.map((one) => one.innerText)"
    )


def test_a_table_is_sorted_filtered_and_taken_away(visit: Open, server: Server, head_file: Path, tmp_path: Path):
    series = {f"{number}": file for number, file in enumerate(heads.dicom_slices(*phantom(4.0)))}
    (tmp_path / "b series.zip").write_bytes(heads.zipped(series))
    (tmp_path / "c.nii.gz").write_bytes(b"no scan at all")
    first = tmp_path / "a.nii.gz"
    save_nifti(first, *phantom(4.0))
    page = visit()
    send(page, tmp_path / "c.nii.gz", tmp_path / "b series.zip", first)
    page.wait_for_selector("html[data-view=table]")
    assert names(page) == ["c.nii.gz", "b series.zip", "a.nii.gz"]
    page.click("th[data-sort=file] button")
    assert names(page) == ["a.nii.gz", "b series.zip", "c.nii.gz"]
    page.click("th[data-sort=file] button")
    assert names(page) == ["c.nii.gz", "b series.zip", "a.nii.gz"]
    assert page.get_attribute("th[data-sort=file]", "aria-sort") == "descending"
    page.click("th[data-sort=rank] button")
    assert names(page)[-1] == "c.nii.gz"
    page.select_option("#table-filter", "refused")
    assert names(page) == ["c.nii.gz"]

    links = page.eval_on_selector_all(".table-tools a", "all => all.map((one) => one.getAttribute('href'))")
    status, headers, body = ask(server, "GET", links[0])
    assert status == 200 and headers["content-type"].startswith("text/csv")
    refused, zipped, plain = csv.DictReader(io.StringIO(body.decode("utf-8-sig")))
    assert refused["file"] == "c.nii.gz" and refused["verdict"] == "refused" and "gzip" in refused["reasons"]
    assert (zipped["slice_mm"], plain["slice_mm"]) == ("4.000000", "")
    assert abs(sum(float(plain[code]) for code in ("AD", "CN", "MCI", "EMCI", "LMCI")) - 1) < 1e-4

    status, headers, body = ask(server, "GET", links[1])
    assert status == 200 and headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["001 c.nii.gz.txt", "002 b series.zip.pdf", "003 a.nii.gz.pdf"]
        assert archive.read("003 a.nii.gz.pdf")[:4] == b"%PDF" and b"gzip" in archive.read("001 c.nii.gz.txt")
    assert ask(server, "GET", re.sub("/pages/[^/]+", "/pages/nobody", links[0]))[0] == 404
