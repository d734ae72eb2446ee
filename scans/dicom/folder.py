"""A folder, CD or tar of DICOM files: looked through by their headers, then one series read.

Headers are read first, one file after another, and nothing of a file is held but what groups it; so a folder may
hold many times what one scan may unpack to. A tar is looked into where it lies, without a copy.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from scans.dicom import acquisition as told
from scans.dicom.choice import choose, grouped, series_of
from scans.dicom.files import MAX_FILES, best_of, nothing_in_it, volume_of
from scans.dicom.headers import File, Reading
from scans.folders.listing import Folder
from scans.memory import grow
from scans.scan import Data, Scan, ScanError, View, what

END = 512  # zeros at least, with which a tar ends


def read_folder(folder: Folder, name: str, series: str | None, limit: int) -> Scan:
    """The best series below a folder, or the one that is asked for."""
    modalities: set[str] = set()
    groups = grouped(looked_through(folder, name, limit, modalities))
    if not groups:
        raise nothing_in_it(name, modalities, len(folder.names))
    group, listed = choose(groups, name, series)
    return volume_of(members(folder, group.places, name, limit), name, limit, listed)


def looked_through(
    folder: Folder, name: str, limit: int, modalities: set[str], damaged: list[str] | None = None
) -> Iterator[tuple[File, str]]:
    """The images by their headers; the kinds of what is DICOM and no image go to `modalities`.

    What is called .dcm and is none, or an image without its pixels, goes to `damaged`.
    """
    damaged = [] if damaged is None else damaged
    for place in folder.names:
        try:
            data = folder.mapped(place)
        except OSError:  # gone meanwhile, or not for us to open: no part of the folder
            continue
        if data is None:
            damaged += [place] * place.lower().endswith(".dcm")
            continue
        grow(len(data))
        file = Reading(name, limit).parse(data, place)
        if place.lower().endswith(".dcm") and (file is None or (file.pixels is None and "Rows" in file.header)):
            damaged.append(place)
        if file is not None and file.pixels is None:
            modalities.add(str(file.header.get("Modality", "")))
        elif file is not None:
            yield file, place
        grow(-len(data))


def survey(folder: Folder, name: str, salt: bytes, limit: int) -> dict[str, Any]:
    """The series of a folder for `scans.folders.units`, and its damaged files.

    Of persons and UIDs there are digests alone, by a salt.
    """

    def digest(text: str) -> str:
        return hashlib.blake2b(text.encode("utf-8", "replace"), key=salt[:64], digest_size=12).hexdigest()

    damaged: list[str] = []
    groups = grouped(looked_through(folder, name, limit, set(), damaged))
    places = {place: index for index, place in enumerate(folder.names)}
    found = []
    for one in series_of(groups):
        header = groups[one.key].header
        person = told.text(header, "PatientID")
        found.append(
            {
                "uid": digest(told.text(header, "SeriesInstanceUID")),
                "study": digest(f"{told.text(header, 'StudyInstanceUID')} {person}"),
                "patient": digest(f"person {person}") if person else "",
                "series": one.record(),
                "names": [places[place] for place in groups[one.key].places],
            }
        )
    return {"found": found, "damaged": [places[place] for place in damaged]}


def members(folder: Folder, places: list[str], name: str, limit: int) -> list[File]:
    """The files of one series, whole."""
    reading, found = Reading(name, limit), []
    for place in places:
        try:
            data = folder.read(place)
        except OSError as error:
            raise ScanError(
                "missing", f"{name}: one of its files cannot be read ({error.strerror}); copy the folder again"
            ) from error
        reading.unpacked(len(data))
        file = reading.parse(data, place)
        if file is None:
            raise ScanError("unreadable", f"{name}: one of its files changed while it was read; read it again")
        found.append(file)
    return found


def read_tar(data: Data, name: str, series: str | None, limit: int) -> Scan:
    """The best series of a tar, or the one that is asked for."""
    return best_of(*untar(data, name, limit), name, series, limit)


def untar(data: Data, name: str, limit: int) -> tuple[list[File], int]:
    """The DICOM files of a tar, where they lie in it, and how many other files it holds."""
    reading, files, others = Reading(name, limit), [], 0
    whole = memoryview(data)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, View(data)), mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_FILES:
                    raise ScanError(
                        "too-large", f"{name}: more than {MAX_FILES:,} files; send the folder of one person"
                    )
                if not member.isreg():
                    continue
                if member.issparse() or member.offset_data + member.size > len(whole):
                    raise broken_off(name)
                part = whole[member.offset_data : member.offset_data + member.size]
                file = reading.parse(part, member.name)
                others += file is None
                files += [file] if file is not None else []
        if any(whole[-END:]):  # the reader itself takes any end for the end
            raise broken_off(name)
    except tarfile.TarError as error:
        raise ScanError(
            "not-what-it-says",
            f"{name}: not a tar but {what(data)}, or a damaged one; rename it by what it is, or pack it again",
        ) from error
    return files, others


def broken_off(name: str) -> ScanError:
    return ScanError("truncated", f"{name}: the tar breaks off or leaves holes; pack the folder again")
