"""NIfTI and MGH volumes: bytes in, a `Scan` out, inflated as they are read and never past a limit.

nibabel knows the headers; the voxels are streamed here, because nibabel's own way inflates into float64 first.
"""

import zlib

import nibabel
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError

from scans.scan import (
    ABSURD_BYTES,
    ABSURD_SIDE,
    MAX_VOXELS,
    MIN_SIDE,
    Reader,
    Scan,
    ScanError,
    check_dtype,
    check_spacing,
    dims,
    usable,
    volume,
    what,
)

try:
    from isal import isal_zlib as inflate
except ImportError:  # no wheel for this machine; zlib gives the same bytes, slower
    inflate = zlib

CHUNK = 1 << 20
MGH_OFFSET = 284  # bytes of an MGH header


class Stream:
    """Bytes read from the front, inflated as they are asked for when the file is gzipped."""

    def __init__(self, data: bytes, name: str, limit: int):
        self.data, self.name, self.limit, self.given = data, name, limit, 0
        self.inflater = inflate.decompressobj(wbits=31) if data[:2] == b"\x1f\x8b" else None

    def take(self, size: int) -> np.ndarray:
        """The next bytes: `size` of them, or fewer where the file ends. Writable."""
        if self.inflater is None:
            part = np.frombuffer(self.data, np.uint8)[self.given : self.given + size].copy()
            self.given += len(part)
            return part
        whole, at = np.empty(size, np.uint8), 0
        while at < size and (part := self._inflate(min(size - at, CHUNK))):
            whole[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        self.given += at
        return whole[:at]

    def _inflate(self, size: int) -> bytes:
        if self.inflater.eof:
            return b""
        try:
            part = self.inflater.decompress(self.data, size)
        except (zlib.error, inflate.error) as error:
            raise ScanError(
                "truncated",
                f"{self.name}: the compressed data are damaged after {self.given:,} "
                "bytes; copy or export the file again",
            ) from error
        self.data = self.inflater.unconsumed_tail
        return part

    def finish(self) -> None:
        """Read on to the end and keep nothing; a stream that inflates past the limit, or breaks, is refused."""
        while self.inflater is not None and not self.inflater.eof:
            part = self._inflate(CHUNK)
            self.given += len(part)
            if self.given > self.limit:
                raise ScanError(
                    "too-large",
                    f"{self.name}: inflates past the limit of {self.limit:,} bytes; "
                    "upload one scan, cropped or with 16-bit voxels",
                )
            if not part and not self.data:
                raise ScanError(
                    "truncated",
                    f"{self.name}: the compressed data end early, after {self.given:,} "
                    "bytes; copy or export the file again",
                )

    def array(self, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
        """The voxels at `offset`, once the header's claims have been checked; fills no more than `limit`."""
        needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if min(shape, default=0) < 1 or max(shape) > ABSURD_SIDE or needed > ABSURD_BYTES:
            raise ScanError(
                "absurd-dimensions",
                f"{self.name}: its header asks for {dims(shape)} voxels "
                f"({needed:,} bytes), which no scan has; export it again",
            )
        if needed > self.limit or needed // dtype.itemsize > MAX_VOXELS:
            raise ScanError(
                "too-large",
                f"{self.name}: {dims(shape)} voxels are {needed:,} bytes, and the "
                f"limit is {self.limit:,}; crop it, or save it with 16-bit voxels",
            )
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
        self.take(offset - self.given)
        raw = self.take(needed)
        self.finish()
        if len(raw) < needed:
            raise ScanError(
                "truncated",
                f"{self.name}: {dims(shape)} voxels need {needed:,} bytes and the "
                f"file holds {len(raw):,}; copy or export it again",
            )
        return raw.view(dtype).reshape(shape[:3], order="F")


def check_gzip(data: bytes, name: str) -> None:
    """A gzip suffix and gzip bytes must go together."""
    zipped, meant = data[:2] == b"\x1f\x8b", name.lower().endswith((".gz", ".mgz"))
    if zipped and not meant:
        raise ScanError("not-what-it-says", f"{name}: a gzip file; rename it to end in .nii.gz or .mgz")
    if meant and not zipped:
        raise ScanError(
            "not-what-it-says",
            f"{name}: not gzip-compressed but {what(data)}; rename it by what it is, or export it again",
        )


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


def read_mgh(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    check_gzip(data, name)
    stream = Stream(data, name, limit)
    head = stream.take(MGH_OFFSET).tobytes()
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
    return volume(voxels, affine if known else np.eye(4), name, "MGH", known)


READERS: dict[str, Reader] = {".nii": read_nifti, ".nii.gz": read_nifti, ".mgz": read_mgh, ".mgh": read_mgh}
