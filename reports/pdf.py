"""A report's blocks on A4 pages, as PDF, by matplotlib alone; what the blocks say is `report`'s business.

Lengths are points (1/72 inch), counted from the page's top left corner.
"""

import io
import re
from datetime import datetime, timezone
from typing import Any

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font

from diagnosis.diagnoser import Diagnosis
from diagnosis.explain import Map
from reports.content import DOUBT, Block, content
from reports.figures import INK, draw_chart, draw_planes, drawing, font_for, planes, printable, proportion, texts

WIDTH, HEIGHT = 595.3, 841.9
LEFT, TOP, RIGHT, BOTTOM = 51.0, 51.0, 544.3, 775.0  # the area that blocks fill
NOTICE = "#b3261e"
# kind: font size, space above
SIZES = {
    "title": (20, 0),
    "heading": (13, 16),
    "big": (17, 4),
    "text": (10, 4),
    "small": (8.5, 4),
    "rows": (9.5, 3),
}
LEADING = 1.38
TALLEST = 370.0  # of the planes
COLUMN = 190.0  # where the second column of rows begins


def draw(blocks: list[Any], diagnosis: Diagnosis, found: Map | None, language: str) -> bytes:
    """The blocks as a PDF, the notice and the page's number at the foot of every page."""
    with drawing:
        pages = Pages(language)
        for block in blocks:
            if block.kind == "break":
                pages.turn()
            elif block.kind == "chart":
                pages.chart(diagnosis)
            elif block.kind == "planes":
                pages.planes(diagnosis, found)
            elif block.kind == "rows":
                for key, value in block.rows:
                    pages.row(key, value)
            else:
                pages.write(block)
        return pages.finish()


class Pages:
    """Pages filled from the top; what does not fit goes on the next."""

    def __init__(self, language: str):
        self.say, self.font = texts(language), font_for(language)
        self.figures: list[Figure] = []
        self.turn()

    def turn(self) -> None:
        self.figures.append(Figure(figsize=(WIDTH / 72, HEIGHT / 72)))
        self.y = TOP

    def room(self, height: float) -> None:
        """Turn the page unless so much of it is left."""
        if self.y + height > BOTTOM:
            self.turn()

    def put(self, x: float, y: float, text: str, size: float, colour: str, align: str = "left") -> None:
        self.figures[-1].text(
            x / WIDTH,
            1 - y / HEIGHT,
            text,
            size=size,
            color=colour,
            ha=align,
            va="baseline",
            fontproperties=self.font,
            parse_math=False,
        )

    def lines(self, x: float, width: float, text: str, size: float, colour: str) -> float:
        """Wrapped text from `self.y` down; the height that it took."""
        wrapped = wrap(printable(text, self.font), width, size, self.font)
        for number, part in enumerate(wrapped):
            self.put(x, self.y + size * (0.95 + LEADING * number), part, size, colour)
        return size * LEADING * len(wrapped)

    def write(self, block: Any) -> None:
        size, above = SIZES[block.kind]
        self.room(above + size * LEADING * (4 if block.kind == "heading" else 1))  # no heading alone at the foot
        self.y += above if self.y > TOP else 0
        self.y += self.lines(LEFT, RIGHT - LEFT, block.text, size, block.colour)
        if block.kind == "heading":
            self.rule()

    def rule(self) -> None:
        axes = self.figures[-1].add_axes((LEFT / WIDTH, 1 - (self.y + 1) / HEIGHT, (RIGHT - LEFT) / WIDTH, 0.0006))
        axes.set_axis_off()
        axes.patch.set_facecolor("#d5dde3")
        axes.add_artist(axes.patch)
        self.y += 5

    def row(self, key: str, value: str) -> None:
        size, above = SIZES["rows"]
        height = size * LEADING * len(wrap(printable(value, self.font), RIGHT - LEFT - COLUMN, size, self.font))
        self.room(above + height)
        self.y += above
        first = self.lines(LEFT, COLUMN - 12, key, size, "#5c6b7a")
        self.y += max(first, self.lines(LEFT + COLUMN, RIGHT - LEFT - COLUMN, value, size, INK))

    def area(self, height: float) -> tuple[float, float, float, float]:
        """The next so many points of the page's width, as matplotlib wants them."""
        self.room(height + 8)
        self.y += 4
        box = LEFT / WIDTH, 1 - (self.y + height) / HEIGHT, (RIGHT - LEFT) / WIDTH, height / HEIGHT
        self.y += height + 4
        return box

    def chart(self, diagnosis: Diagnosis) -> None:
        box = self.area(26 * len(diagnosis.weights.study.labels))
        draw_chart(self.figures[-1].add_axes(box), diagnosis, self.say, self.font)

    def planes(self, diagnosis: Diagnosis, found: Map | None) -> None:
        views = planes(diagnosis, found)
        box = self.area(min((RIGHT - LEFT) * proportion(views), TALLEST))
        figure = self.figures[-1]
        black = figure.add_axes(box, facecolor="black")
        black.set_xticks([])
        black.set_yticks([])
        draw_planes(figure, box, views)

    def finish(self) -> bytes:
        file = io.BytesIO()
        with PdfPages(file, metadata={"Title": self.say["report.title"], "Creator": "Scanwise"}) as pages:
            for number, figure in enumerate(self.figures, 1):
                count = self.say["report.page"].format(number=number, total=len(self.figures))
                for y, text, colour in ((803, self.say["notice"], NOTICE), (816, count, "#5c6b7a")):
                    figure.text(
                        0.5, 1 - y / HEIGHT, text, size=8.5, color=colour, ha="center", fontproperties=self.font
                    )
                pages.savefig(figure, dpi=200)
        return file.getvalue()


def wrap(text: str, width: float, size: float, font: FontProperties) -> list[str]:
    """The text in lines that fit; broken between words, between Chinese characters, and in what is longer."""
    face = get_font(font.get_file() or fontManager.findfont(font))
    face.set_size(size, 72)

    def measure(part: str) -> float:
        face.set_text(part)
        return face.get_width_height()[0] / 64

    lines = [""]
    for piece in re.findall(r"\s+|[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef]+", text):
        if measure(lines[-1] + piece) <= width:
            lines[-1] += piece
        elif measure(piece) <= width:
            lines.append(piece.lstrip())
        else:
            for letter in piece:
                if measure(lines[-1] + letter) > width:
                    lines.append("")
                lines[-1] += letter
    return [line.rstrip() for line in lines if line.strip()] or [""]


def pdf(
    diagnosis: Diagnosis, found: Map | None = None, language: str = "en", made: datetime | None = None
) -> bytes:
    """The report on A4; in English, and saying so, where no font for the language is installed."""
    missing = font_for(language) is None
    blocks = content(diagnosis, found, "en" if missing else language, made or datetime.now(timezone.utc))
    if missing:
        blocks.insert(1, Block("small", texts("en")["report.font"], colour=DOUBT))
    return draw(blocks, diagnosis, found, "en" if missing else language)
