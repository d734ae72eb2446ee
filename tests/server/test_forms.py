"""A form taken apart piece by piece: what its files are called, and what is counted."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from server import forms
from server.folder import Uploads
from server.forms import Form, file_name
from server.http import Refusal


@pytest.fixture
def state(tmp_path: Path):
    uploads = Uploads(tmp_path / "up", 1 << 20)
    yield SimpleNamespace(uploads=uploads)
    uploads.close()


def form(state) -> Form:
    return Form(b"x", state, lambda: Refusal(413, "too-large", "too large"))


def part(disposition: str, body: bytes = b"") -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + body + b"\r\n"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="a"', None),
        ('form-data; name="files"; filename="head.nii"', "head.nii"),
        ("form-data; name=files; filename*=UTF-8''%C3%A4%20b.nii.gz", "ä b.nii.gz"),
        ("form-data; name=files; filename*=iso-8859-1'en'%E4.nii", "ä.nii"),
        ('form-data; name="files"; filename="plain.nii"; filename*=UTF-8other.nii', "plain.nii"),
        (f'form-data; name="files"; filename="{"n" * 300}.nii.gz"', "n" * 248 + ".nii.gz"),
        ('form-data; name="files"; filename=""', ""),
    ],
)
def test_a_file_is_called_what_its_sender_calls_it(disposition, name):
    raw = disposition.encode()
    assert file_name(raw, parse_options_header(raw)[1]) == name


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_it_comes_apart_the_same_in_pieces_of_any_size(state, size):
    body = part('name="study"', b"alzheimers") + part('name="files"; filename="a.nii"', b"voxels") + b"--x--\r\n"
    found = form(state)
    for start in range(0, len(body), size):
        found.write(body[start : start + size])
    found.finish()
    assert found.fields == {"study": "alzheimers"}
    ((name, upload, error),) = found.files
    assert (name, error) == ("a.nii", None) and upload.path.read_bytes() == b"voxels"


def test_parts_and_their_heads_are_counted(state):
    found = form(state)
    found.write(part('name="a"') * forms.MAX_PARTS)
    with pytest.raises(Refusal, match="413") as refusal:
        found.write(part('name="a"'))
    assert refusal.value.code == "too-many"
    with pytest.raises((Refusal, FormParserError)):
        form(state).write(part(f'name="a"; b={"c" * forms.MAX_HEADER}'))


def test_a_field_is_short(state):
    with pytest.raises(Refusal, match="413"):
        form(state).write(part('name="study"', b"a" * (forms.MAX_FIELD + 1)))
