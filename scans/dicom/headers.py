"""One DICOM file taken apart: the elements that are needed of its header, and where its pixels lie.

Everything is counted: bytes, data elements, frames. Of the header only what `KEPT` names is held, in this process;
what goes further is geometry, numbers and words of our own tables.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, cast

from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from scans.dicom.pixels import Pixels
from scans.folders.listing import may_be_dicom
from scans.memory import grow
from scans.scan import Data, ScanError, View

MAX_ELEMENTS = 500_000  # of all the files of a zip or folder; a thousand slices have some 150,000
MAX_UNPACKED = 640 << 20  # bytes of them; as many voxels as a scan may have take 512 MB with two bytes each
CHUNK = 1 << 20
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED = 0xFFFFFFFF  # the length of what ends with a delimiter: compressed pixels
WIDE_HEADER = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")  # value types with four bytes for their length
LAID = (  # where an image lies, and how its pixels are stored
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
KEPT: list[BaseTag | int] = [
    cast(int, tag_for_keyword(keyword))
    for keyword in (
        *LAID,
        "SpecificCharacterSet",
        "ImageType",
        "SOPInstanceUID",
        "Modality",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "PlanarConfiguration",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "PixelPaddingValue",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "RescaleIntercept",
        "RescaleSlope",
        "RescaleType",
        "ModalityLUTSequence",
        "VOILUTSequence",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        # how it was acquired, and who must not be named
        "PatientName",
        "PatientID",
        "Manufacturer",
        "ManufacturerModelName",
        "MagneticFieldStrength",
        "SeriesDescription",
        "ProtocolName",
        "SequenceName",
        "PulseSequenceName",
        "ScanningSequence",
        "MRAcquisitionType",
        "AcquisitionContrast",
        "RepetitionTime",
        "EchoTime",
        "EffectiveEchoTime",
        "InversionTime",
        "FlipAngle",
        "ContrastBolusAgent",
        "ContrastBolusAgentSequence",
        "ContrastBolusVolume",
        "BodyPartExamined",
    )
]

ODD_HEADERS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Content:
    """The data set of a file as its bytes, to read other elements from."""

    data: memoryview
    implicit: bool
    little: bool

    def stream(self) -> View:
        return View(self.data)


@dataclass(frozen=True, eq=False)
class File:
    """A DICOM file that holds pixels, or one that does not."""

    header: Dataset  # what `KEPT` names
    pixels: Pixels | None
    content: Content | None = None


class Counted(View):
    """A file's content that counts how often it is read: about twice for each data element, nested ones too."""

    def __init__(self, data: Data | bytearray | memoryview, count: Callable[[int], None]):
        super().__init__(data)
        self.count = count

    def read(self, size: int | None = -1) -> bytes:
        self.count(1)
        return super().read(size)


class Reading:
    """One file or zip being read: its name, and what it may still unpack to."""

    def __init__(self, name: str, limit: int):
        self.name, self.reads = name, 2 * MAX_ELEMENTS
        self.limit = self.left = min(limit, MAX_UNPACKED)

    def count(self, reads: int) -> None:
        self.reads -= reads
        if self.reads < 0:
            raise ScanError(
                "too-large",
                f"{self.name}: more than {MAX_ELEMENTS:,} data elements in its headers; "
                "upload one series alone, or convert it with dcm2niix",
            )

    def unpacked(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ScanError(
                "too-large",
                f"{self.name}: unpacks to more than the limit of {self.limit:,} bytes; zip one series alone",
            )
        grow(size)

    def inflate(self, data: Data | memoryview) -> bytearray:
        """The whole of a bare deflate stream, as far as the limit goes."""
        inflater, whole, fed = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), 0
        rest: bytes | memoryview = b""
        while not inflater.eof:
            if not rest:
                rest = memoryview(data)[fed : fed + CHUNK]
                fed += len(rest)
            ending = not rest
            part = inflater.decompress(rest, CHUNK)
            rest = inflater.unconsumed_tail
            self.unpacked(len(part))
            whole += part
            if ending and not part:
                break
        return whole

    def parse(self, raw: Data | bytearray | memoryview, filename: str = ".dcm") -> File | None:
        """The header and pixels in the bytes of a file, or None where it is no DICOM file."""
        if not may_be_dicom(raw, filename):
            return None
        try:
            return self._parse(raw, 132 if raw[128:132] == b"DICM" else 0)
        except ScanError:
            raise
        except (zlib.error, *ODD_HEADERS):
            return None

    def _parse(self, raw: Data | bytearray | memoryview, start: int) -> File:
        stream = Counted(raw, self.count)
        stream.seek(start)
        meta = read_dataset(cast(BinaryIO, stream), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        begin = stream.tell()
        syntax = uid.UID(str(meta.get("TransferSyntaxUID", "") or uid.ImplicitVRLittleEndian))
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            raw, syntax = self.inflate(memoryview(raw)[stream.tell() :]), uid.ExplicitVRLittleEndian
            begin = 0
            stream = Counted(raw, self.count)
        implicit = syntax.is_implicit_VR if syntax.is_transfer_syntax else False
        little = syntax.is_little_endian if syntax.is_transfer_syntax else True
        found: list[tuple[int, str | None, int]] = []

        def at_pixels(tag: int, vr: str | None, length: int) -> bool:
            if vr == "SQ" or length > CHUNK:  # parsed when it is asked for, out of sight of the count
                self.count((0 if length == UNDEFINED else length) // 16 if int(tag) in KEPT else 0)
            if int(tag) in PIXELS:
                found.append((int(tag), vr, length))
            return int(tag) >= 0x7FE00008

        header = read_dataset(cast(BinaryIO, stream), implicit, little, stop_when=at_pixels, specific_tags=KEPT)
        content = Content(memoryview(raw)[begin:], implicit, little)
        if not found or "Rows" not in header:
            return File(header, None, content)
        tag, vr, length = found[0]
        at = stream.tell() + (12 if vr in WIDE_HEADER else 8)
        end = len(raw) if length == UNDEFINED else at + length
        return File(
            header, Pixels(header, PIXELS[tag], syntax, memoryview(raw)[at:end], length == UNDEFINED), content
        )
