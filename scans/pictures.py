"""Pictures such as PNG and JPEG: bytes in, a `Scan` of kind "image" out; Pillow decodes them."""

from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from scans.memory import grow
from scans.scan import MAX_PIXELS, Data, Scan, ScanError, View, image, what

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")  # a picture's content tells which: public sets misname some
BYTES = 16  # a pixel, while it is decoded, turned and copied


def read_picture(data: Data, name: str, series: str | None, limit: int) -> Scan:
    """One picture; of a moving one the first."""
    try:
        picture: Image.Image = Image.open(cast(BinaryIO, View(data)), formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            raise ScanError(
                "too-large",
                f"{name}: {picture.height}×{picture.width} pixels, and the limit is {MAX_PIXELS:,}; scale it down",
            )
        grow(picture.width * picture.height * BYTES)
        form = picture.format or "picture"
        picture = ImageOps.exif_transpose(picture)
        if not picture.mode.startswith("I"):
            picture = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
        pixels = np.asarray(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ScanError("too-large", f"{name}: more than {MAX_PIXELS:,} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        if what(data) in ("a PNG picture", "a JPEG picture"):
            raise ScanError("truncated", f"{name}: the picture is damaged; copy or export it again") from error
        raise ScanError(
            "not-what-it-says",
            f"{name}: none of {', '.join(FORMATS)} but {what(data)}; rename it by what it is, or export it again",
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError("truncated", f"{name}: the picture breaks off; copy or export it again") from error
    return image(pixels, name, form)
