"""Pictures such as PNG and JPEG: bytes in, a `Scan` of kind "image" out; Pillow decodes them."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from scans.scan import MAX_PIXELS, Reader, Scan, ScanError, image, what

# what a picture may be -> how its name may end; what it is its content tells, for public sets misname some
PICTURES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "BMP": (".bmp",), "GIF": (".gif",), "WEBP": (".webp",)}
IMAGES = tuple(ending for endings in PICTURES.values() for ending in endings)


def read_picture(data: bytes, name: str, series: str | None, limit: int) -> Scan:
    """One picture; of a moving one the first."""
    try:
        picture = Image.open(BytesIO(data), formats=list(PICTURES))
        if picture.width * picture.height > MAX_PIXELS:
            raise ScanError(
                "too-large",
                f"{name}: {picture.height}×{picture.width} pixels, and the limit is {MAX_PIXELS:,}; scale it down",
            )
        form = picture.format or "picture"
        picture = ImageOps.exif_transpose(picture)
        if not picture.mode.startswith("I"):
            picture = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
        pixels = np.array(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ScanError("too-large", f"{name}: more than {MAX_PIXELS:,} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise ScanError(
            "not-what-it-says",
            f"{name}: none of {', '.join(PICTURES)} but {what(data)}; rename it by what it is, or export it again",
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError("truncated", f"{name}: the picture breaks off; copy or export it again") from error
    return image(pixels, name, form)


READERS: dict[str, Reader] = dict.fromkeys(IMAGES, read_picture)
