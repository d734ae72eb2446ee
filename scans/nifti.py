"""NIfTI and MGH volumes: bytes in, a `Scan` out, inflated as they are read and never past a limit.

nibabel knows the headers; the voxels are streamed here, because nibabel's own way inflates into float64 first.
"""

from collections.abc import Iterator

import nibabel
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError

from scans.files import INFLATE_ERRORS, inflate
from scans.memory import empty
from scans.scan import (
    MIN_SIDE,
    Data,
    Scan,
    ScanError,
    check_dtype,
    check_shape,
    check_spacing,
    dims,
    kept_as,
    usable,
    volume,
    what,
)

CHUNK = 1 << 20  # bytes given at once
FED = 1 << 18  # bytes of a compressed file inflated at once
DENSEST = 1100  # times that deflate can make anything smaller, and a little more
MGH_OFFSET = 284  # bytes of an MGH header


class Stream:
    """Bytes read from the front, inflated as they are asked for when the file is gzipped."""

    def __init__(self, data: Data, name: str, limit: int):
        self.data, self.name, self.limit = memoryview(data), name, limit
        self.given = self.fed = 0  # bytes of what it unpacks to, and of the file
        self.inflater = inflate.decompressobj(wbits=31) if data[:2] == b"\x1f\x8b" else None
        self.left: bytes | memoryview = b""  # fed and not yet inflated

    def take(self, size: int) -> bytes:
        """The next bytes: `size` of them, or fewer where the file ends."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes | memoryview]:
        """The next bytes, a few at a time."""
        while size > 0 and (part := self._next(min(size, CHUNK))):
            self.given += len(part)
            size -= len(part)
            yield part

    def skip(self, size: int) -> None:
        for _ in self.pieces(size):
            pass

    def _next(self, size: int) -> bytes | memoryview:
        if self.inflater is None:
            plain = self.data[self.fed : self.fed + size]
            self.fed += len(plain)
            return plain
        while not self.inflater.eof:
            if not self.left and self.fed < len(self.data):
                self.left = self.data[self.fed : self.fed + FED]
                self.fed += len(self.left)
            ending = not self.left
            try:
                part = self.inflater.decompress(self.left, size)
            except INFLATE_ERRORS as error:
                raise ScanError(
                    "truncated",
                    f"{self.name}: the compressed data are damaged after {self.given:,} "
                    "bytes; copy or export the file again",
                ) from error
            self.left = self.inflater.unconsumed_tail
            if part or ending:
                return part
        return b""

    def finish(self) -> None:
        """Read on to the end and keep nothing; a stream that inflates past the limit, or breaks, is refused."""
        while self.inflater is not None and not self.inflater.eof:
            part = self._next(CHUNK)
            self.given += len(part)
            if self.given > self.limit:
                raise ScanError(
                    "too-large",
                    f"{self.name}: inflates past the limit of {self.limit:,} bytes; "
                    "upload one scan, cropped or with 16-bit voxels",
                )
            if not part and not self.inflater.eof:
                raise ScanError(
                    "truncated",
                    f"{self.name}: the compressed data end early, after {self.given:,} "
                    "bytes; copy or export the file again",
                )

    def array(
        self,
        dtype: np.dtype,
        shape: tuple[int, ...],
        offset: int,
        slope: float | None = None,
        inter: float | None = None,
    ) -> np.ndarray:
        """The voxels at `offset`, times `slope` plus `inter`, as scans hold them; fills no more than `limit`.

        They are turned into what is kept as they arrive, so that no second array of their size is needed.
        """
        check_shape(shape, dtype.itemsize, self.name, self.limit)
        if len(shape) < 3 or min(shape[:3]) < MIN_SIDE:
            raise ScanError(
                "absurd-dimensions",
                f"{self.name}: {dims(shape)} voxels; a volume has at least "
                f"{MIN_SIDE} each way: upload the whole scan, not a slice",
            )
        if max(shape[3:], default=1) > 1:
            count = int(np.prod(shape[3:]))
            raise ScanError(
                "several-volumes",
                f"{self.name}: {count} volumes ({dims(shape)}); upload one "
                "3-D volume, or extract one with `fslroi`",
            )
        needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        self.skip(offset - self.given)
        if self.inflater is None and len(self.data) - self.fed < needed:
            raise self._short(shape, needed, max(0, len(self.data) - self.fed))
        if needed > DENSEST * len(self.data):
            raise ScanError(
                "truncated",
                f"{self.name}: {dims(shape)} voxels need {needed:,} bytes, which its "
                f"{len(self.data):,} cannot hold; copy or export it again",
            )
        scaled = slope not in (None, 1) or inter not in (None, 0)
        voxels = empty(shape[:3], kept_as(dtype, scaled), "F")
        flat, at, rest = voxels.reshape(-1, order="F"), 0, b""
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes Inf, and is counted later
            for piece in self.pieces(needed):
                if rest:
                    piece = rest + bytes(piece)
                whole = len(piece) // dtype.itemsize
                part = np.frombuffer(piece, dtype, whole)
                rest = bytes(piece[whole * dtype.itemsize :])
                into = flat[at : at + whole]
                into[:] = part
                if scaled:
                    into *= np.float32(1 if slope is None else slope)
                    into += np.float32(0 if inter is None else inter)
                at += whole
        self.finish()
        if at < flat.size:
            raise self._short(shape, needed, at * dtype.itemsize + len(rest))
        return voxels

    def _short(self, shape: tuple[int, ...], needed: int, held: int) -> ScanError:
        return ScanError(
            "truncated",
            f"{self.name}: {dims(shape)} voxels need {needed:,} bytes and the "
            f"file holds {held:,}; copy or export it again",
        )


def check_gzip(data: Data, name: str) -> None:
    """A gzip suffix and gzip bytes must go together."""
    zipped, meant = data[:2] == b"\x1f\x8b", name.lower().endswith((".gz", ".mgz"))
    if zipped and not meant:
        raise ScanError("not-what-it-says", f"{name}: a gzip file; rename it to end in .nii.gz or .mgz")
    if meant and not zipped:
        raise ScanError(
            "not-what-it-says",
            f"{name}: not gzip-compressed but {what(data)}; rename it by what it is, or export it again",
        )


def read_nifti(data: Data, name: str, series: str | None, limit: int) -> Scan:
    check_gzip(data, name)
    stream = Stream(data, name, limit)
    head = stream.take(348)
    if len(head) < 348:
        stream.finish()
        raise ScanError("truncated", f"{name}: {len(head)} bytes, less than a NIfTI header; copy it again")
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if 540 in sizes:
        head += stream.take(540 - 348)
        if len(head) < 540:
            stream.finish()
            raise ScanError("truncated", f"{name}: {len(head)} bytes end inside the header; copy it again")
        magic = head[4:7]
        header: nibabel.Nifti1Header = nibabel.Nifti2Header(head, check=False)
    else:
        magic = head[344:347]
        header = nibabel.Nifti1Header(head, check=False)
    if not sizes & {348, 540}:
        stream.finish()
        if magic in (b"n+1", b"ni1"):
            raise ScanError(
                "bad-header",
                f"{name}: its header gives {int.from_bytes(head[:4], 'little')} "
                "as its own size instead of 348 or 540; export the scan again",
            )
        raise ScanError(
            "not-what-it-says",
            f"{name}: no NIfTI inside but {what(head)}; rename it by what it is, or export the scan as .nii.gz",
        )
    if magic not in (b"n+1", b"n+2"):
        raise ScanError(
            "bad-header",
            f"{name}: half of a pair of files (.hdr and .img), or damaged; save the scan as one .nii.gz",
        )
    rank, offset = int(header["dim"][0]), float(header["vox_offset"])
    if not 1 <= rank <= 7 or not 0 <= offset < CHUNK:
        raise ScanError(
            "bad-header",
            f"{name}: its header claims {rank} dimensions, voxels at byte {offset:.0f}; export the scan again",
        )
    try:
        dtype = header.get_data_dtype()
        slope, inter = header.get_slope_inter()
    except (HeaderDataError, KeyError) as error:
        raise ScanError(
            "bad-header", f"{name}: its header does not hold together ({error}); export the scan again"
        ) from error
    check_dtype(dtype, name)
    check_spacing(header["pixdim"][1:4], name)
    shape = tuple(int(n) for n in header["dim"][1 : rank + 1])
    voxels = stream.array(dtype, shape, max(int(offset), len(head) + 4), slope, inter)
    affine, known = nifti_affine(header)
    return volume(voxels, affine, name, "NIfTI", known, dtype.name)


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


def read_mgh(data: Data, name: str, series: str | None, limit: int) -> Scan:
    check_gzip(data, name)
    stream = Stream(data, name, limit)
    head = stream.take(MGH_OFFSET)
    if head[:4] != b"\x00\x00\x00\x01":
        stream.finish()
        raise ScanError(
            "not-what-it-says",
            f"{name}: no MGH volume inside but {what(head)}; rename it by what it "
            "is, or convert it with `mri_convert`",
        )
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
        raise ScanError(
            "bad-header",
            f"{name}: voxels of type {int(header['type'])}, which MGH does not have; "
            "convert it with `mri_convert`",
        ) from error
    voxels = stream.array(dtype, tuple(int(n) for n in header["dims"]), MGH_OFFSET)
    affine = header.get_affine()
    known = known and usable(affine)
    return volume(voxels, affine if known else np.eye(4), name, "MGH", known, dtype.name)
