"""The pixels of one DICOM file, frame by frame; compressed ones by decoders that are named here.

What a compressed frame says of its own size is compared with the header before a decoder sees it: decoders believe
the frame. No other decoder is ever chosen, whatever else is installed.
"""

import re
import struct
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder

from scans.memory import grow
from scans.scan import ABSURD_SIDE, Data, ScanError

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
JPEG = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
)
JPEG2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
DECODERS = dict.fromkeys((*JPEG, *JPEG2000, uid.RLELossless), "pylibjpeg")  # transfer syntax -> pydicom's plugin
SIZES = {8: "u1", 16: "u2", 32: "u4"}  # bits allocated -> numpy's type
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
MEANINGS = (*COLOURS, "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "ARGB", "CMYK", "HSV")
MAX_FRAMES = 1 << 14
NO_SIZE = frozenset([0xC4, 0xC8, 0xCC])  # JPEG markers that look like a frame's header and are not


class Pixels:
    """The pixels of a file as they lie in it, and what its header says of them."""

    def __init__(self, header: Dataset, keyword: str, syntax: uid.UID, data: memoryview, packed: bool):
        self.header, self.keyword, self.syntax, self.data, self.packed = header, keyword, syntax, data, packed
        self.rows, self.columns = self._number("Rows"), self._number("Columns")
        self.frames = max(1, self._number("NumberOfFrames", 1))
        self.samples = self._number("SamplesPerPixel", 1)
        self.bits = self._number("BitsAllocated", 32 if keyword == "FloatPixelData" else 16)
        self.meaning = str(header.get("PhotometricInterpretation", "") or "MONOCHROME2")
        self._split: list[bytes] = []

    def _number(self, keyword: str, otherwise: int = 0) -> int:
        value = self.header.get(keyword)
        return otherwise if value is None or str(value) == "" else int(value)

    @property
    def size(self) -> int:
        """What all of it takes, unpacked."""
        return self.rows * self.columns * self.frames * self.samples * max(1, self.bits // 8)

    @property
    def dtype(self) -> np.dtype:
        """Of a pixel, unpacked."""
        if self.keyword == "FloatPixelData":
            return np.dtype(np.float32)
        kind = np.dtype(SIZES[self.bits])
        return np.dtype(kind.str.replace("u", "i")) if self._number("PixelRepresentation") else kind

    def check(self, name: str) -> None:
        """Refuse what the header cannot mean, and what no decoder here reads."""
        if not (0 < self.rows <= ABSURD_SIDE * 2 and 0 < self.columns <= ABSURD_SIDE * 2):
            raise ScanError(
                "absurd-dimensions", f"{name}: {self.rows}×{self.columns} pixels, by its header; export it again"
            )
        if self.frames > MAX_FRAMES:
            raise ScanError(
                "too-large",
                f"{name}: {self.frames:,} frames, and the limit is {MAX_FRAMES:,}; upload a smaller series",
            )
        if self.bits not in SIZES or self.samples not in (1, 3):
            raise ScanError(
                "bad-header",
                f"{name}: {self.samples} samples of {self.bits} bits a pixel; export it with 8 or 16 bits",
            )
        if (self.samples == 3) != (self.meaning in COLOURS):
            raise ScanError(
                "bad-header",
                f"{name}: {self.samples} sample{'s' * (self.samples > 1)} a pixel, and "
                f"their meaning is {plain(self.meaning)}; export it again",
            )
        if self.packed and self.syntax not in DECODERS:
            raise ScanError(
                "unknown-type",
                f"{name}: pixels packed by a method that is not read here "
                f"({plain(self.syntax)}); export it uncompressed",
            )

    def frame(self, index: int, name: str) -> np.ndarray:
        """One frame, (rows, columns) or (rows, columns, 3), colours as RGB."""
        if index == 0:
            self.check(name)
        size = self.rows * self.columns * self.samples * self.bits // 8
        if self.packed:
            part = self._packed_frame(index, name)
            grow(4 * size)
            decoder, source = get_decoder(self.syntax), encapsulate([part])
            plugin, keyword = DECODERS[self.syntax], "PixelData"
        else:
            if self.meaning == "YBR_FULL_422":
                size = size // 3 * 2
            source = bytes(self.data[index * size : (index + 1) * size])
            if len(source) < size:
                raise ScanError(
                    "truncated",
                    f"{name}: its pixels break off after {len(self.data):,} bytes of "
                    f"{size * self.frames:,}; copy or export it again",
                )
            syntax = self.syntax if self.syntax in NATIVE else uid.ExplicitVRLittleEndian
            decoder, plugin, keyword = get_decoder(syntax), "", self.keyword
        try:
            pixels, _ = decoder.as_array(source, index=0, decoding_plugin=plugin, **self._options(keyword))
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in Rust derives from this alone
            raise ScanError(
                "truncated",
                f"{name}: its compressed picture cannot be unpacked "
                f"({type(error).__name__}); copy or export it again",
            ) from error
        grow(-4 * size if self.packed else 0)
        return pixels

    def _options(self, keyword: str) -> dict[str, Any]:
        options = {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": 1,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.meaning,
            "bits_allocated": self.bits,
            "pixel_keyword": keyword,
        }
        if keyword == "PixelData":
            options |= {
                "bits_stored": self._number("BitsStored", self.bits),
                "pixel_representation": self._number("PixelRepresentation"),
            }
        if self.samples == 3:
            options["planar_configuration"] = self._number("PlanarConfiguration")
        return options

    def _packed_frame(self, index: int, name: str) -> bytes:
        """The code stream of one frame, its own size found to be the header's."""
        if not self._split:
            frames = generate_frames(BytesIO(self.data), number_of_frames=self.frames)
            for part in frames:
                self._split.append(part)
                if len(self._split) == self.frames:
                    break
        if index >= len(self._split):
            raise ScanError(
                "truncated", f"{name}: {len(self._split)} of {self.frames} frames; copy or export it again"
            )
        part = self._split[index]
        told = (self.rows, self.columns, self.samples)
        found = told if self.syntax == uid.RLELossless else stream_size(part)
        if found != told:
            raise ScanError(
                "bad-header",
                f"{name}: {told[0]}×{told[1]} pixels of {told[2]} by its header, and its "
                f"compressed picture {_words(found)}; export it again",
            )
        return part


def plain(text: str) -> str:
    """What a header calls a method, where it can be one: elsewhere a person's name might stand there."""
    return text if text in MEANINGS or re.fullmatch(r"[0-9.]{5,64}", text) else "one unknown here"


def _words(size: tuple[int, int, int] | None) -> str:
    return "tells no size" if size is None else f"is {size[0]}×{size[1]} of {size[2]}"


def stream_size(part: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples by a JPEG, JPEG-LS or JPEG 2000 stream's own word; None where it has none."""
    if part[:2] == b"\xff\xd8":
        return _jpeg_size(part)
    at = part.find(b"\xff\x4f\xff\x51", 0, 4096)  # a bare stream, or one in a short wrapping of boxes
    if at < 0 or len(part) < at + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", part, at + 8)
    if right <= left or bottom <= top:
        return None
    return bottom - top, right - left, struct.unpack_from(">H", part, at + 40)[0]


def _jpeg_size(part: Data) -> tuple[int, int, int] | None:
    at = 2
    while at + 4 <= len(part) and part[at] == 0xFF:
        marker, (length,) = part[at + 1], struct.unpack_from(">H", part, at + 2)
        if marker == 0xFF:  # padding
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in NO_SIZE) or marker == 0xF7:
            if at + 10 > len(part):
                return None
            rows, columns, samples = struct.unpack_from(">HHB", part, at + 5)
            return rows, columns, samples
        if marker == 0xDA or length < 2:
            return None
        at += 2 + length
    return None
