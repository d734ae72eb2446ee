"""The fonts of the PDF: a file for each language, and which characters it can write. None is shipped by us."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fontTools.ttLib import TTCollection

LATIN = "DejaVuSans.ttf"  # comes with matplotlib
# Where a language needs more than Latin letters: files of its fonts, the best first, and in a collection the face
FONTS: dict[str, tuple[tuple[str, str], ...]] = {
    "zh": (
        ("NotoSansSC-Regular.ttf", ""),
        ("NotoSansSC-Regular.otf", ""),
        ("NotoSansCJKsc-Regular.otf", ""),
        ("SourceHanSansSC-Regular.otf", ""),
        ("NotoSansCJK-Regular.ttc", "Noto Sans CJK SC"),
        ("SourceHanSans.ttc", "Source Han Sans SC"),
        ("PingFang.ttc", "PingFang SC"),
        ("STHeiti Light.ttc", "Heiti SC"),
        ("msyh.ttc", "Microsoft YaHei"),
        ("simhei.ttf", ""),
        ("wqy-microhei.ttc", "WenQuanYi Micro Hei"),
        ("wqy-zenhei.ttc", "WenQuanYi Zen Hei"),
        ("DroidSansFallbackFull.ttf", ""),
        ("DroidSansFallback.ttf", ""),
        ("Arial Unicode.ttf", ""),
    ),
}


@cache
def font_for(language: str) -> tuple[Path, int] | None:
    """A font file that writes the language and the number of its face; None where none is installed."""
    if language not in FONTS:
        return _latin(), 0
    from matplotlib.font_manager import findSystemFonts  # here: it looks through the disk, and few reports ask

    installed = {
        Path(file).name: Path(file) for suffix in ("ttf", "otf") for file in findSystemFonts(None, suffix)
    }
    for name, face in FONTS[language]:
        if name in installed:
            return installed[name], _face(installed[name], face)
    return None


def _latin() -> Path:
    home = find_spec("matplotlib")
    assert home is not None and home.origin is not None, "matplotlib stands in requirements.txt"
    return Path(home.origin).parent / "mpl-data" / "fonts" / "ttf" / LATIN


def _face(path: Path, name: str) -> int:
    """The number of a collection's face; 0, the first, of a file that is none or has no face of that name."""
    if path.suffix.lower() != ".ttc":
        return 0
    with TTCollection(str(path), lazy=True) as faces:
        names = [face["name"].getDebugName(1) for face in faces.fonts]
    return names.index(name) if name in names else 0
