"""Privacy: what files say of a person is searched for wherever a run of the real server leaves anything."""

import base64
import gzip
import io
import json
import re
import threading
import zipfile
from pathlib import Path

import nibabel
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pypdf import PdfReader

import diagnose
from archive.base import ALSO, NEEDED
from tests import heads
from tests.asking import ANALYSIS, ask, form, post
from tests.browser import result_of, send, visiting
from tests.support import Server, phantom, running

NAME, NUMBER = "Plantedname", "74839201"  # inside the files: nobody may see them again
FILE = "Filename_55501234"  # in the files' names: shown back to the sender, and kept nowhere
SHOWN_BACK = ("file", "error")  # the fields of a record that may name the file


def nifti(path: Path) -> Path:
    """The phantom with the person in every text field of its header, and in an extension."""
    voxels, affine = phantom(4.0)
    image = nibabel.Nifti1Image(voxels, affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = f"{NAME} {NUMBER}"[: image.header[field].dtype.itemsize].encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{NAME}^{NUMBER}".encode()))
    nibabel.save(image, path)
    return path


def series(path: Path, broken: bool = False) -> Path:
    """The phantom as a zipped series, with the person in tags, in a private tag and in the members' names."""
    files = {}
    for number, slice_ in enumerate(heads.dicom_slices(*phantom(4.0))):
        data = pydicom.dcmread(io.BytesIO(slice_))
        data.PatientName, data.PatientID, data.PatientBirthDate = f"{NAME}^A", NUMBER, "19010203"
        data.ReferringPhysicianName = data.OperatorsName = data.InstitutionName = NAME
        data.SeriesDescription = data.StudyDescription = data.ProtocolName = data.ImageComments = (
            f"{NAME} {NUMBER}"
        )
        data.AccessionNumber = data.StudyID = NUMBER
        data.private_block(0x0031, "PLANTED", create=True).add_new(1, "LO", f"{NAME} {NUMBER}")
        if broken:
            data.PixelData = data.PixelData[: -len(data.PixelData) // 2]
        files[f"{NAME}_{NUMBER}/{number}.dcm"] = heads.to_bytes(data)
    path.write_bytes(heads.zipped(files))
    return path


def picture(path: Path) -> Path:
    about = PngInfo()
    about.add_text("Patient", f"{NAME} {NUMBER}")
    Image.effect_noise((64, 64), 80).save(path, pnginfo=about)
    return path


def texts_of(body: bytes) -> list[bytes]:
    """A body, and what lies packed in it: gzip, pages of a PDF, pictures within HTML and what these say."""
    found = [body]
    if body[:2] == b"\x1f\x8b":
        found.append(gzip.decompress(body))
    if body[:4] == b"%PDF":
        reader = PdfReader(io.BytesIO(body))
        found += [page.extract_text().encode() for page in reader.pages] + [str(reader.metadata).encode()]
    if body[:4] == b"\x89PNG":
        with Image.open(io.BytesIO(body)) as image:
            found.append(json.dumps({key: str(value) for key, value in image.info.items()}).encode())
    for inlined in re.findall(rb"base64,([A-Za-z0-9+/=]+)", body):
        found += texts_of(base64.b64decode(inlined))
    return found


def clean(body: bytes | str, file_too: bool = True) -> None:
    """Nothing of the person is in it, nor, where the sender is not answered, the file's name."""
    for text in texts_of(body.encode() if isinstance(body, str) else body):
        for planted in (NAME, NUMBER, "19010203", *([FILE] if file_too else [])):
            at = text.lower().find(planted.lower().encode())
            assert at < 0, text[max(at - 80, 0) : at + 80]


@pytest.mark.parametrize("kind", ["nifti", "series", "picture"])
def test_the_search_finds_what_was_planted(planted, kind):
    body = planted[kind].read_bytes()
    with pytest.raises(AssertionError):
        clean(body if kind != "nifti" else b"x," + base64.b64encode(body).join([b"base64,", b""]))


class Names(threading.Thread):
    """Every name that stands in some folders while something is done."""

    def __init__(self, *folders: Path):
        super().__init__(daemon=True)
        self.folders, self.seen, self.done = folders, set(), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.seen |= {path.name for folder in self.folders for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("planted")
    return {
        "nifti": nifti(folder / f"{FILE}.nii.gz"),
        "series": series(folder / f"{FILE}.zip"),
        "broken": series(folder / f"{FILE}_broken.zip", broken=True),
        "picture": picture(folder / f"{FILE}.png"),
    }


def answers(server: Server, planted: dict[str, Path]) -> None:
    for path in planted.values():
        data = path.read_bytes()
        _, _, records = post(server, (path.name, data), judge_anyway="yes")
        for record in records if isinstance(records, list) else [records]:
            clean(json.dumps(record), file_too=False)
            clean(json.dumps({key: value for key, value in record.items() if key not in SHOWN_BACK}))
        cut = path.with_name(f"{FILE}_cut{''.join(path.suffixes)}").name
        clean(json.dumps(post(server, (cut, data[: len(data) // 2]))[2]), file_too=False)
    body, kind = form((planted["nifti"].name, planted["nifti"].read_bytes()), judge_anyway="yes")
    for accept in ("text/html", "application/pdf", "application/gzip"):
        status, _, report = ask(server, "POST", ANALYSIS, body, Content_Type=kind, Accept=accept)
        assert status == 200
        clean(report, file_too=False)


def page_and_what_it_fetches(server: Server, browser, file: Path) -> None:
    with visiting(browser, server) as visit:
        page = visit()
        send(page, file)
        page.wait_for_selector("html[data-view=result], html[data-view=refusal]")
        if page.locator("[data-do=anyway]").count():
            page.click("[data-do=anyway]")
        result_of(page)
        clean(page.content(), file_too=False)
        key = page.get_attribute("#viewer", "data-key")
        for part in ("volume", "map", "map.nii.gz", "map.png", "labels.nii.gz"):
            status, headers, body = ask(server, "GET", f"/results/{key}/{part}")
            assert status == 200, part
            clean(body)
            clean(str(headers))
        for part in ("report.html", "report.pdf", "report.json"):
            status, headers, body = ask(server, "GET", f"/results/{key}/{part}")
            assert status == 200, part
            clean(body, file_too=False)
        status, headers, body = ask(server, "GET", f"/results/{key}/dicom.zip")
        assert (page.locator("a[href*='dicom.zip']").count() == 1) == (status == 200) == (file.suffix == ".zip")
        if status == 200:
            belongs_to_the_person(body)
        else:
            clean(body, file_too=False)


def belongs_to_the_person(body: bytes) -> None:
    """DICOM results bear the person's name, where it belongs: in the patient's and the study's elements alone."""
    with zipfile.ZipFile(io.BytesIO(body)) as packed:
        made = [pydicom.dcmread(io.BytesIO(packed.read(name))) for name in packed.namelist()]
    for one in made:
        assert NAME in str(one.PatientName) and one.PatientID == NUMBER
        if "EncapsulatedDocument" in one:
            clean(one.EncapsulatedDocument, file_too=False)
        for keyword in (*NEEDED, *ALSO):
            if keyword in one:
                del one[keyword]
        clean(str(one), file_too=False)
        clean(one.get("PixelData", b""))


def test_nothing_of_the_person_is_found_anywhere(tmp_path, monkeypatch, measuring_folder, planted, browser):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running(
        tmp_path / "server", "--weights", measuring_folder, "--workers", "1", "--audit", tmp_path / "audit"
    ) as server:
        names = Names(temporary, server.uploads)
        names.start()
        answers(server, planted)
        for file in (planted["nifti"], planted["series"]):
            page_and_what_it_fetches(server, browser, file)
        names.done.set()
        names.join()
        for path in ("/metrics", "/healthz", "/studies"):
            clean(ask(server, "GET", path)[2])
    clean(server.log.read_bytes())
    written = (tmp_path / "audit").read_bytes()
    clean(written)
    assert written.count(b'"what":"scan judged"') >= 10 and b'"part":"dicom.zip"' in written
    clean("\n".join(names.seen))
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


def test_reports_of_the_command_line_tell_nothing_but_the_files_name(tmp_path, measuring_folder, planted, capsys):
    weights = next(measuring_folder.glob("alz*"))
    scans = [str(planted["nifti"]), str(planted["series"]), str(planted["broken"])]
    wishes = [
        "--weights",
        str(weights),
        "--judge-anyway",
        "--report",
        str(tmp_path),
        "--csv",
        str(tmp_path / "x.csv"),
        "--labels",
        str(tmp_path / "labels"),
    ]
    assert diagnose.main([*scans, *wishes]) == 1  # the broken one
    out = capsys.readouterr()
    assert len(list((tmp_path / "labels").iterdir())) == 2
    for text in (out.out, out.err, *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())):
        clean(text, file_too=False)
    pictures = list(tmp_path.glob("*.png"))
    assert pictures
    for path in pictures:
        clean(path.read_bytes())
