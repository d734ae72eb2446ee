"""File formats: the bytes of a file in, a `Scan` out. All in memory; nothing is written to disk.

Every refusal is a `ScanError` that names the offending value, then the remedy. Of a header only geometry and
numbers are kept: no name, date or description goes further.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import nibabel
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError
from PIL import Image, ImageOps, UnidentifiedImageError

import grid

try:
    from isal import isal_zlib as inflate
except ImportError:  # no wheel for this machine; zlib gives the same bytes, slower
    inflate = zlib

MAX_VOXELS = 1 << 28
MAX_PIXELS = 1 << 26
ABSURD_SIDE, ABSURD_BYTES = 1 << 13, 1 << 36  # beyond these a header lies rather than describes a big scan
MIN_SIDE = 4  # voxels or pixels
MAX_BAD = 0.01  # share of NaN and Inf voxels that is repaired
SPACINGS = (0.01, 50.0)  # mm that a voxel can measure
FARTHEST = 1e5  # mm from the scanner's centre
CHUNK = 1 << 20
MGH_OFFSET = 284  # bytes of an MGH header

MAGIC = {  # how a file begins -> what it is
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
    b"\x5c\x01\x00\x00": "an uncompressed NIfTI file",
    b"\x00\x00\x01\x5c": "an uncompressed NIfTI file",
    b"%PDF": "a PDF document",
    b"<": "a web page or XML",
}


class ScanError(ValueError):
    """A file that cannot be used: `code` for machines; the text names the value and the way out."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, eq=False)
class Scan:
    voxels: np.ndarray  # volume (X, Y, Z) in stored order; image (H, W) or (H, W, 3)
    affine: np.ndarray  # (4, 4) voxel → world mm, RAS
    kind: str  # "volume" or "image"
    facts: dict[str, Any]  # JSON-ready, for the page


def dims(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def what(data: bytes) -> str:
    if data[128:132] == b"DICM":
        return "a DICOM file"
    return next((words for magic, words in MAGIC.items() if data.startswith(magic)), "something else")


class Stream:
    """Bytes read from the front, inflated as they are asked for when the file is gzipped."""

    def __init__(self, data: bytes, name: str, limit: int):
        self.data, self.name, self.limit, self.given = data, name, limit, 0
        self.inflater = inflate.decompressobj(wbits=31) if data[:2] == b"\x1f\x8b" else None

    def take(self, size: int) -> np.ndarray:
        """The next bytes: `size` of them, or fewer where the file ends. Writable."""
        if self.inflater is None:
            part = np.frombuffer(self.data, np.uint8)[self.given:self.given + size].copy()
            self.given += len(part)
            return part
        whole, at = np.empty(size, np.uint8), 0
        while at < size and (part := self._inflate(min(size - at, CHUNK))):
            whole[at:at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        self.given += at
        return whole[:at]

    def _inflate(self, size: int) -> bytes:
        if self.inflater.eof:
            return b""
        try:
            part = self.inflater.decompress(self.data, size)
        except (zlib.error, inflate.error) as error:
            raise ScanError("truncated", f"{self.name}: the compressed data are damaged after {self.given:,} "
                                         "bytes; copy or export the file again") from error
        self.data = self.inflater.unconsumed_tail
        return part

    def finish(self) -> None:
        """Read on to the end and keep nothing; a stream that inflates past the limit, or breaks, is refused."""
        while self.inflater is not None and not self.inflater.eof:
            part = self._inflate(CHUNK)
            self.given += len(part)
            if self.given > self.limit:
                raise ScanError("too-large", f"{self.name}: inflates past the limit of {self.limit:,} bytes; "
                                             "upload one scan, cropped or with 16-bit voxels")
            if not part and not self.data:
                raise ScanError("truncated", f"{self.name}: the compressed data end early, after {self.given:,} "
                                             "bytes; copy or export the file again")

    def array(self, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
        """The voxels at `offset`, once the header's claims have been checked; fills no more than `limit`."""
        needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if min(shape, default=0) < 1 or max(shape) > ABSURD_SIDE or needed > ABSURD_BYTES:
            raise ScanError("absurd-dimensions", f"{self.name}: its header asks for {dims(shape)} voxels "
                                                 f"({needed:,} bytes), which no scan has; export it again")
        if needed > self.limit or needed // dtype.itemsize > MAX_VOXELS:
            raise ScanError("too-large", f"{self.name}: {dims(shape)} voxels are {needed:,} bytes, and the "
                                         f"limit is {self.limit:,}; crop it, or save it with 16-bit voxels")
        if len(shape) < 3 or min(shape[:3]) < MIN_SIDE:
            raise ScanError("absurd-dimensions", f"{self.name}: {dims(shape)} voxels; a volume has at least "
                                                 f"{MIN_SIDE} each way: upload the whole scan, not a slice")
        if max(shape[3:], default=1) > 1:
            count = int(np.prod(shape[3:]))
            raise ScanError("several-volumes", f"{self.name}: {count} volumes ({dims(shape)}); upload one "
                                               "3-D volume, or extract one with `fslroi`")
        self.take(offset - self.given)
        raw = self.take(needed)
        self.finish()
        if len(raw) < needed:
            raise ScanError("truncated", f"{self.name}: {dims(shape)} voxels need {needed:,} bytes and the "
                                         f"file holds {len(raw):,}; copy or export it again")
        return raw.view(dtype).reshape(shape[:3], order="F")


def check_gzip(data: bytes, name: str) -> None:
    """A gzip suffix and gzip bytes must go together."""
    zipped, meant = data[:2] == b"\x1f\x8b", name.lower().endswith((".gz", ".mgz"))
    if zipped and not meant:
        raise ScanError("not-what-it-says", f"{name}: a gzip file; rename it to end in .nii.gz or .mgz")
    if meant and not zipped:
        raise ScanError("not-what-it-says", f"{name}: not gzip-compressed but {what(data)}; rename it by "
                                            "what it is, or export it again")


def read_nifti(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    check_gzip(data, name)
    stream = Stream(data, name, limit)
    head = stream.take(348).tobytes()
    if len(head) < 348:
        stream.finish()
        raise ScanError("truncated", f"{name}: {len(head)} bytes, less than a NIfTI header; copy it again")
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if 540 in sizes:
        head += stream.take(540 - 348).tobytes()
        if len(head) < 540:
            stream.finish()
            raise ScanError("truncated", f"{name}: {len(head)} bytes end inside the header; copy it again")
        header, magic = nibabel.Nifti2Header(head, check=False), head[4:7]
    else:
        header, magic = nibabel.Nifti1Header(head, check=False), head[344:347]
    if not sizes & {348, 540}:
        stream.finish()
        if magic in (b"n+1", b"ni1"):
            raise ScanError("bad-header", f"{name}: its header gives {int.from_bytes(head[:4], 'little')} "
                                          "as its own size instead of 348 or 540; export the scan again")
        raise ScanError("not-what-it-says", f"{name}: no NIfTI inside but {what(head)}; rename it by what "
                                            "it is, or export the scan as .nii.gz")
    if magic not in (b"n+1", b"n+2"):
        raise ScanError("bad-header", f"{name}: half of a pair of files (.hdr and .img), or damaged; save "
                                      "the scan as one .nii.gz")
    rank, offset = int(header["dim"][0]), float(header["vox_offset"])
    if not 1 <= rank <= 7 or not 0 <= offset < CHUNK:
        raise ScanError("bad-header", f"{name}: its header claims {rank} dimensions, voxels at byte {offset:.0f}; "
                                      "export the scan again")
    try:
        dtype = header.get_data_dtype()
        slope, inter = header.get_slope_inter()
    except (HeaderDataError, KeyError) as error:
        raise ScanError("bad-header", f"{name}: its header does not hold together ({error}); export the scan "
                                      "again") from error
    check_dtype(dtype, name)
    check_spacing(header["pixdim"][1:4], name)
    shape = tuple(int(n) for n in header["dim"][1:rank + 1])
    voxels = stream.array(dtype, shape, max(int(offset), len(head) + 4))
    affine, known = nifti_affine(header)
    return volume(voxels, affine, name, "NIfTI", known, slope, inter)


def nifti_affine(header: nibabel.Nifti1Header) -> tuple[np.ndarray, bool]:
    """The first affine that can be used, sform before qform; else the spacing alone, and False."""
    for get in (header.get_sform, header.get_qform):
        try:
            affine = get(coded=True)[0]
        except (HeaderDataError, ValueError):  # a quaternion longer than one
            continue
        if affine is not None and usable(affine):
            return affine, True
    return np.diag([*header["pixdim"][1:4].astype(float), 1.0]), False


def usable(affine: np.ndarray) -> bool:
    """Whether voxels of a sensible size lie in three different directions, somewhere near a person."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > FARTHEST:
        return False
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    sensible = SPACINGS[0] <= steps.min() and steps.max() <= SPACINGS[1]
    return bool(sensible and abs(np.linalg.det(affine[:3, :3] / steps)) > 0.1)


def check_dtype(dtype: np.dtype, name: str) -> None:
    if dtype.fields or dtype.kind == "V":
        raise ScanError("rgb", f"{name}: colour voxels ({dtype.itemsize} bytes of red, green, blue); save "
                               "the scan with one number a voxel")
    if dtype.kind == "c":
        raise ScanError("complex", f"{name}: complex voxels ({dtype.name}); save the magnitude image")
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise ScanError("bad-header", f"{name}: voxels of type {dtype}; save them as 16-bit integers")


def check_spacing(spacing: np.ndarray, name: str) -> None:
    if not all(SPACINGS[0] <= s <= SPACINGS[1] for s in spacing):
        raise ScanError("bad-spacing", f"{name}: a voxel measures {dims([f'{s:g}' for s in spacing])} mm, "
                                       "by its header; correct the spacing, or export the scan again")


def read_mgh(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    check_gzip(data, name)
    stream = Stream(data, name, limit)
    head = stream.take(MGH_OFFSET).tobytes()
    if head[:4] != b"\x00\x00\x00\x01":
        stream.finish()
        raise ScanError("not-what-it-says", f"{name}: no MGH volume inside but {what(head)}; rename it by what it "
                                            "is, or convert it with `mri_convert`")
    if len(head) < MGH_OFFSET:
        stream.finish()
        raise ScanError("truncated", f"{name}: {len(head)} bytes, less than an MGH header; copy it again")
    known = head[28:30] == b"\x00\x01"  # its "good RAS" flag
    header = MGHHeader(head[:90], check=False)
    if known:
        check_spacing(header["delta"], name)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise ScanError("bad-header", f"{name}: voxels of type {int(header['type'])}, which MGH does not have; "
                                      "convert it with `mri_convert`") from error
    voxels = stream.array(dtype, tuple(int(n) for n in header["dims"]), MGH_OFFSET)
    affine = header.get_affine()
    known = known and usable(affine)
    return volume(voxels, affine if known else np.eye(4), name, "MGH", known)


def volume(voxels: np.ndarray, affine: np.ndarray, name: str, form: str, known: bool,
           slope: float | None = None, inter: float | None = None, **more: Any) -> Scan:
    """What every volume goes through: 8 or 16-bit integers or float32 of this machine, finite, not constant."""
    stored = voxels.dtype.name
    check_dtype(voxels.dtype, name)
    scaled = slope not in (None, 1) or inter not in (None, 0)
    keep = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2 and not scaled
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes Inf, and is counted below
        voxels = voxels.astype(voxels.dtype.newbyteorder("=") if keep else np.float32, copy=False)
        if scaled:
            voxels = voxels * np.float32(slope) + np.float32(inter)
        finite = keep or np.isfinite(voxels.sum())
    repaired = 0 if finite else repair(voxels, name)
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise ScanError("constant", f"{name}: every voxel is {low:g}, so there is no picture in it; export "
                                    "the scan again")
    facts = {
        "format": form, "shape": list(voxels.shape), "dtype": stored,
        "spacing": [round(float(s), 4) for s in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "".join(nibabel.aff2axcodes(affine)) if known else "unknown",
        "affine_known": known, "oblique": known and grid.is_oblique(affine), "repaired": repaired, **more,
    }
    return Scan(voxels, np.asarray(affine, dtype=float), "volume", facts)


def repair(voxels: np.ndarray, name: str) -> int:
    """Put the mean of the finite neighbours in place of each NaN or Inf voxel; how many there were."""
    bad = np.argwhere(~np.isfinite(voxels))  # (n, 3)
    if len(bad) > MAX_BAD * voxels.size:
        raise ScanError("not-finite", f"{name}: {len(bad):,} of {voxels.size:,} voxels are not numbers (NaN "
                                      "or Inf); replace them, for instance with `fslmaths -nan`")
    around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    near = np.clip(bad[:, None] + around, 0, np.array(voxels.shape) - 1)  # (n, 27, 3)
    values = voxels[tuple(np.moveaxis(near, -1, 0))].astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    count = np.isfinite(values).sum(1)
    mean = np.nansum(values, 1) / np.maximum(count, 1)
    lowest = voxels[np.isfinite(voxels)].min()
    voxels[tuple(bad.T)] = np.where(count > 0, mean, lowest)
    return len(bad)


# what a picture may be -> how its name may end; what it is its content tells, for public sets misname some
PICTURES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "BMP": (".bmp",), "GIF": (".gif",), "WEBP": (".webp",)}
IMAGES = tuple(ending for endings in PICTURES.values() for ending in endings)


def read_picture(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    """One picture; of a moving one the first."""
    try:
        picture = Image.open(BytesIO(data), formats=list(PICTURES))
        if picture.width * picture.height > MAX_PIXELS:
            raise ScanError("too-large", f"{name}: {picture.height}×{picture.width} pixels, and the limit is "
                                         f"{MAX_PIXELS:,}; scale it down")
        form = picture.format or "picture"
        picture = ImageOps.exif_transpose(picture)
        if not picture.mode.startswith("I"):
            picture = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
        pixels = np.array(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ScanError("too-large", f"{name}: more than {MAX_PIXELS:,} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise ScanError("not-what-it-says", f"{name}: none of {', '.join(PICTURES)} but {what(data)}; "
                                            "rename it by what it is, or export it again") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError("truncated", f"{name}: the picture breaks off; copy or export it again") from error
    return image(pixels, name, form)


def image(pixels: np.ndarray, name: str, form: str, **more: Any) -> Scan:
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ScanError("absurd-dimensions", f"{name}: {dims(pixels.shape[:2])} pixels; upload all of it")
    if pixels.min() == pixels.max():
        raise ScanError("constant", f"{name}: every pixel is {pixels.min():g}, so there is nothing in the "
                                    "picture; export it again")
    facts = {"format": form, "shape": list(pixels.shape), "dtype": pixels.dtype.name, "affine_known": False,
             "oblique": False, "repaired": 0, **more}
    return Scan(pixels, np.eye(4), "image", facts)


Reader = Callable[[bytes, str, str | None, int], Scan]  # bytes, shown name, series, limit in bytes

READERS: dict[str, Reader] = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".mgz": read_mgh,
    ".mgh": read_mgh,
    **dict.fromkeys(IMAGES, read_picture),
}
