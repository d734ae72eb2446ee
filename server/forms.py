"""A multipart form taken apart as it arrives: files straight to disk, small fields in memory, all counted."""

import contextlib
import re
import urllib.parse
from typing import BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header

from scans.read import safe_name
from scans.scan import ScanError
from server.folder import Upload
from server.http import Refusal
from server.state import ServerState

MAX_FIELD = 4096  # bytes of a form field that is not a file
MAX_FILES = 200  # of one request
MAX_PARTS = MAX_FILES + 20  # of one form, files and fields together
MAX_HEADER = 8192  # bytes of the head of a form's part
FIELDS = (
    "study",
    "weights",
    "judge_anyway",
    "uncertainty",
    "language",
    "series",
    "age",
    "sex",
)  # beside the files
SWITCHES = {"": False, "1": True, "true": True, "yes": True, "on": True} | dict.fromkeys(
    ("0", "false", "no", "off"), False
)
EXTENDED = re.compile(r"filename\*\s*=\s*\"?([\w-]*)'[^']*'([^;\"\s]+)", re.ASCII)


class Form:
    """A multipart body taken apart as it arrives: files straight to disk, small fields in memory."""

    def __init__(self, boundary: bytes, state: ServerState, too_large):
        self.state, self.too_large = state, too_large
        self.fields: dict[str, str] = {}
        self.files: list[tuple[str, Upload | None, ScanError | None]] = []
        self.uploads: list[Upload] = []
        self._file: BinaryIO | None = None
        self.count = -1  # of parts; one is begun before the first
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._shut,
            },
        )
        self._part()

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def finish(self) -> None:
        self._parser.finalize()
        for field in self.fields:
            if field not in FIELDS:
                known = ", ".join(FIELDS)
                raise Refusal(422, "unknown-field", f"no field is called {field[:40]!r}; there are: {known}")

    def switch(self, field: str) -> bool:
        """Whether a field that is on or off is on."""
        said = self.fields.get(field, "")
        if said.lower() not in SWITCHES:
            raise Refusal(422, "unknown-value", f"{field} is {said[:40]!r}; send true or false")
        return SWITCHES[said.lower()]

    def close(self) -> None:
        file, self._file = self._file, None
        close(file)

    def _part(self) -> None:
        self.count += 1
        if self.count > MAX_PARTS:
            raise Refusal(413, "too-many", f"the form has more than {MAX_PARTS} parts; send fewer at once")
        self._bytes = 0
        self._headers: dict[str, bytes] = {}
        self._key, self._value, self._text, self._field, self._size = b"", b"", b"", "", 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header(end - start)
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header(end - start)
        self._value += data[start:end]

    def _header(self, size: int) -> None:
        self._bytes += size
        if self._bytes > MAX_HEADER:
            raise Refusal(413, "too-large", f"the head of a part of the form is longer than {MAX_HEADER} bytes")

    def _header_end(self) -> None:
        self._headers[self._key.decode("latin-1").lower()] = self._value
        self._key = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        name = file_name(self._headers.get("content-disposition", b""), options)
        self._is_file = name is not None
        if name is None:
            return
        if self._field not in ("file", "files"):
            raise Refusal(422, "unknown-field", f"a file in the field {self._field[:40]!r}; use `files` or `file`")
        if len(self.files) >= MAX_FILES:
            raise Refusal(413, "too-many", f"more than {MAX_FILES} files; send fewer at once")
        try:
            upload = self.state.uploads.new(name)
        except ScanError as error:
            self.files.append((safe_name(name), None, error))
            return
        self.files.append((upload.name, upload, None))
        self.uploads.append(upload)
        self._file = upload.path.open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._is_file:
            if self._size > self.state.uploads.limit:
                raise self.too_large()
            if self._file is not None:
                self._file.write(memoryview(data)[start:end])
        elif self._size > MAX_FIELD:
            raise Refusal(413, "too-large", f"the field {self._field[:40]!r} is longer than {MAX_FIELD} bytes")
        else:
            self._text += data[start:end]

    def _shut(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()  # what cannot be written by now is told as 507
        if not self._is_file:
            self.fields[self._field] = self._text.decode("utf-8", "replace")


def file_name(disposition: bytes, options: dict[bytes, bytes]) -> str | None:
    """The last 255 letters of a part's file name; None where the part is no file.

    Forms should not use `filename*=`, and some clients send nothing else.
    """
    if b"filename" in options:
        return options[b"filename"].decode("utf-8", "replace")[-255:]
    found = EXTENDED.search(disposition.decode("latin-1"))
    if found is None:
        return None
    charset = "utf-8" if found[1].lower() in ("", "utf-8") else "latin-1"
    return urllib.parse.unquote(found[2], charset, "replace")[-255:]


def close(file) -> None:
    """Close a file that is not kept: what could not be written of it does not matter."""
    if file is not None:
        with contextlib.suppress(OSError):
            file.close()
