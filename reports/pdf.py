"""A report's blocks on A4 pages, as a PDF with text that can be searched and copied; `content` says what they say.

Lengths are points (1/72 inch), counted from the page's top left corner.
"""

import itertools
import logging
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fpdf import FPDF
from PIL import Image

from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports import curves
from reports.content import Bar, Block, bars, content
from reports.curves import Panel, panels
from reports.cuts import overview
from reports.figures import picture, planes
from reports.fonts import font_for
from reports.style import ACCENT, BAD, DOUBT, INK, PLAIN, QUIET
from reports.wording import ENGLISH, Texts

SIDE, TOP, FOOT = 51.0, 51.0, 67.0  # margins
# kind: font size, space above
SIZES = {
    "title": (20, 0),
    "heading": (13, 10),
    "big": (17, 2),
    "text": (10, 4),
    "small": (8.5, 4),
    "rows": (9.5, 3),
    "details": (8.5, 1.5),
}
LEADING = 1.38
TALLEST = 370.0  # of a picture
LOWEST = {"overview": 130.0, "planes": 170.0}  # a picture for which less is left goes on the next page
BESIDE = 0.62  # of the width: the overview, which has its text beside it
LINE = 12.5  # height of a row of the table
FIGURES = 9.0  # font size of the table
COLUMN = 190.0  # where the second column of rows begins
# Where a line may end: between words, and after any Chinese character that no closing mark follows
PIECES = re.compile(r"\s+|(?:[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef]+)[，。；：、）！？]*")


def pdf(
    diagnosis: Diagnosis, heat_map: Map | None = None, language: str = "en", made: datetime | None = None
) -> bytes:
    """The report on A4; in English, and saying so, where no font for the language is installed."""
    made = made or datetime.now(timezone.utc)
    font, t = font_for(language), Texts(language)
    if font is None:
        font, t = font_for(ENGLISH), Texts(ENGLISH)
        blocks = content(diagnosis, heat_map, t, made)
        blocks.insert(1, Block("small", t("report.font"), colour=DOUBT))
    else:
        blocks = content(diagnosis, heat_map, t, made)
    assert font is not None, "English needs no installed font"
    pages = Pages(t, font, made)
    for number, block in enumerate(blocks):
        if block.kind == "break":
            pages.add_page()
        elif block.kind in ("planes", "overview"):
            rest = itertools.takewhile(lambda other: other.kind != "break", blocks[number + 1 :])
            drawn = (
                picture(planes(diagnosis, heat_map)) if block.kind == "planes" else overview(diagnosis, heat_map)
            )
            pages.picture(block, drawn, sum(pages.height(other) for other in rest))
        elif block.kind == "table":
            pages.table_of(block)
        elif block.kind == "chart":
            pages.chart(bars(diagnosis.record(), diagnosis.weights.study, t))
        elif block.kind == "curves":
            pages.curves(block, list(panels(diagnosis.norms, diagnosis.measures, diagnosis.person).values()))
        elif block.kind in ("rows", "details"):
            for key, value in block.rows:
                pages.row(block, key, value)
        else:
            pages.block(block)
    return bytes(pages.output())


class Pages(FPDF):
    """Pages filled from the top; what does not fit goes on the next."""

    def __init__(self, t: Texts, font: tuple[Path, int], made: datetime):
        super().__init__(unit="pt", format="A4")
        self.t = t
        self.set_margins(SIDE, TOP)
        self.c_margin = 0  # text begins where its column does
        self.set_auto_page_break(True, FOOT)
        self.set_title(t("report.title"))
        self.set_creator("Scanwise")
        self.set_lang(t("language.tag"))
        self.set_creation_date(made)
        # fontTools warns of a table that some fonts have and nobody reads when it writes the letters in use
        logging.getLogger("fontTools.subset").setLevel(logging.ERROR)
        self.add_font("report", fname=font[0], collection_font_number=font[1])
        self.add_page()

    def footer(self) -> None:
        for y, text, colour in (
            (self.h - 45, self.t("notice"), BAD),
            (self.h - 32, self.t("report.page", number=self.page_no(), total="{nb}"), QUIET),
        ):
            self.pen(8.5, colour)
            self.set_xy(SIDE, y)
            self.cell(self.epw, 11, text, align="C")

    def pen(self, size: float, colour: str) -> None:
        self.set_font("report", size=size)
        self.set_text_color(colour)

    def known(self, text: str) -> str:
        """The text with a question mark for every character that the font cannot write."""
        cmap = self.current_font.cmap  # type: ignore[union-attr]  # a font of our own, never a built-in one
        return "".join(letter if ord(letter) in cmap else "?" for letter in text)

    def broken(self, text: str, width: float) -> str:
        """The known text in lines that fit; fpdf2 breaks at blanks alone, of which Chinese has none."""
        lines = [""]
        for piece in PIECES.findall(self.known(text)):
            if lines[-1] and self.get_string_width(lines[-1] + piece.rstrip()) > width:
                lines.append(piece.lstrip())
            else:
                lines[-1] += piece
        return "\n".join(line.rstrip() for line in lines)

    def lines(self, x: float, width: float, text: str, size: float) -> float:
        """Wrapped text from here down; the height that it took."""
        top = self.y
        self.set_x(x)
        self.multi_cell(width, size * LEADING, self.broken(text, width), align="L", new_x="LEFT", new_y="NEXT")
        return self.y - top

    def room(self, height: float) -> None:
        """Turn the page unless so much of it is left."""
        if self.will_page_break(height):
            self.add_page()

    def block(self, block: Block) -> None:
        size, above = SIZES[block.kind]
        self.room(above + size * LEADING * (4 if block.kind == "heading" else 1))  # no heading alone at the foot
        self.y += above if self.y > TOP else 0
        self.pen(size, block.colour)
        self.lines(SIDE, self.epw, block.text, size)
        if block.kind == "heading":
            self.set_draw_color("#d5dde3")
            self.line(SIDE, self.y + 1, self.w - SIDE, self.y + 1)
            self.y += 5

    def row(self, block: Block, key: str, value: str) -> None:
        size, above = SIZES[block.kind]
        self.pen(size, block.colour)
        width = self.epw - COLUMN
        lines: Any = self.multi_cell(
            width, size * LEADING, self.broken(value, width), dry_run=True, output="LINES"
        )
        self.room(above + size * LEADING * len(lines))
        self.y += above
        top = self.y
        taken = self.lines(SIDE + COLUMN, width, value, size)
        self.y = top
        self.pen(size, QUIET)
        self.y = top + max(taken, self.lines(SIDE, COLUMN - 12, key, size))

    def chart(self, rows: list[Bar]) -> None:
        """The probabilities as bars, the predicted class in colour."""
        height, left, width = (
            26.0 if any(row.span for row in rows) else 19.0,
            SIDE + COLUMN,
            self.epw - COLUMN - 84,
        )
        self.room(height * len(rows))
        self.y += 6
        for row in rows:
            top = self.y
            for share, colour in ((1.0, "#e8edf1"), (row.chance, ACCENT if row.chosen else PLAIN)):
                self.set_fill_color(colour)
                self.rect(left, top, width * share, 14, style="F")
            self.label(self.known(f"{row.name} · {row.code}"), COLUMN - 8, top)
            self.pen(9.5, INK)
            self.set_xy(left + width + 8, top)
            self.cell(76, 14, row.shown)
            if row.span:
                self.span(row, left, width, top + 18)
            self.y = top + height
        self.y += 2

    def label(self, text: str, width: float, top: float) -> None:
        """A bar's name, in smaller letters where it is too long for its room."""
        self.pen(9.5, INK)
        self.set_font_size(9.5 * min(1, width / max(self.get_string_width(text), 1)))
        self.set_xy(SIDE, top)
        self.cell(width, 14, text, align="R")

    def span(self, row: Bar, left: float, width: float, y: float) -> None:
        """The interval as a thin line below its bar."""
        low, high = left + width * row.low, left + width * row.high
        self.set_draw_color(INK)
        self.set_line_width(0.8)
        self.line(low, y, high, y)
        for end in (low, high):
            self.line(end, y - 2, end, y + 2)
        self.pen(7.5, QUIET)
        self.set_xy(left + width + 8, y - 4)
        self.cell(76, 8, row.span)

    def table_of(self, block: Block) -> None:
        """A table whose first row is its head, the numbers to the right of their columns."""
        self.room(LINE * len(block.rows))
        self.y += 2
        self.pen(FIGURES, INK)
        columns = list(zip(*block.rows, strict=True))
        widest = [max(self.get_string_width(self.known(cell)) for cell in column) for column in columns]
        gap = (self.epw - sum(widest)) / (len(widest) - 1)
        widths = [widest[0], *(width + gap for width in widest[1:])]
        for number, row in enumerate(block.rows):
            self.pen(FIGURES, INK if number else QUIET)
            self.set_x(SIDE)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
                self.cell(width, LINE, self.known(cell), align="R" if place else "L")
            self.y += LINE
            if number == 0:
                self.set_draw_color("#d5dde3")
                self.line(SIDE, self.y, self.w - SIDE, self.y)

    def curves(self, block: Block, figures: list[Panel]) -> None:
        """The figures side by side, each above its words."""
        gap = 10.0
        width = (self.epw - gap * (len(figures) - 1)) / max(len(figures), 4)
        scale = width / curves.WIDTH
        self.room(curves.HEIGHT * scale + 40)
        top = lowest = self.y + 4
        for place, (figure, (title, centile)) in enumerate(zip(figures, block.rows, strict=True)):
            left = SIDE + place * (width + gap)
            self.figure(figure, left, top, scale)
            self.pen(7.5, QUIET)
            self.y = top + curves.HEIGHT * scale + 2
            self.lines(left, width, f"{title} · {self.t('column.centile')} {centile}", 7.5)
            lowest = max(lowest, self.y)
        self.y = lowest + 2

    def figure(self, figure: Panel, left: float, top: float, scale: float) -> None:
        at = lambda points: [(left + scale * x, top + scale * y) for x, y in points]  # noqa: E731
        for area, colour in ((figure.outer, "#e8edf1"), (figure.inner, "#c3d3db")):
            self.set_fill_color(colour)
            self.polygon(at(area), style="F")
        self.set_line_width(0.8)
        self.set_draw_color(ACCENT)
        self.polyline(at(figure.median))
        floor = top + scale * (curves.HEIGHT - curves.BOTTOM)
        self.set_draw_color("#d5dde3")
        self.line(left + scale * curves.LEFT, floor, left + scale * (curves.WIDTH - curves.RIGHT), floor)
        self.pen(5.5, QUIET)
        for x, words in figure.ages:
            self.set_xy(left + scale * x - 12, floor + 2)
            self.cell(24, 6, words, align="C")
        for y, words in figure.values:
            self.set_xy(left, top + scale * y - 3)
            self.cell(scale * (curves.LEFT - 4), 6, words, align="R")
        (x, y), (high, low) = figure.point, figure.span
        self.set_draw_color(BAD)
        self.set_fill_color(BAD)
        self.line(left + scale * x, top + scale * high, left + scale * x, top + scale * low)
        self.circle(left + scale * x, top + scale * y, 2.0, style="F")
        self.set_line_width(0.5)

    def picture(self, block: Block, drawn: Image.Image, after: float) -> None:
        """A picture as large as leaves room for what comes after it on its page."""
        self.room(LOWEST[block.kind] + after + 10)
        left = min(TALLEST, self.h - FOOT - self.y - after - 12)
        share = BESIDE if block.kind == "overview" else 1.0
        height = min(self.epw * share * drawn.height / drawn.width, max(left, LOWEST[block.kind]))
        width = height * drawn.width / drawn.height
        self.y += 6
        top, x = self.y, SIDE if block.kind == "overview" else SIDE + (self.epw - width) / 2
        alt = self.t("report.overview" if block.kind == "overview" else "report.pictures")
        self.image(drawn, x, top, width, height, alt_text=alt)
        if block.text:
            self.beside(block, SIDE + width + 12, self.epw - width - 12)
        self.y = max(self.y, top + height) + 4

    def beside(self, block: Block, x: float, width: float) -> None:
        """A picture's text and the names of its colours, in a column of their own."""
        size = SIZES["small"][0]
        self.pen(size, QUIET)
        for line in block.text.split("\n"):
            self.lines(x, width, line, size)
            self.y += 3
        for name, colour in block.rows:
            self.set_fill_color(colour)
            self.rect(x, self.y + 3, 7, 7, style="F")
            self.lines(x + 12, width - 12, name, size)

    def height(self, block: Block) -> float:
        """What a block will take."""
        if block.kind == "table":
            return LINE * len(block.rows) + 2
        size, above = SIZES[block.kind]
        if block.kind not in ("rows", "details"):
            self.pen(size, block.colour)
            lines = self.broken(block.text, self.epw).count("\n") + 1
            return above + size * LEADING * lines + (6 if block.kind == "heading" else 0)
        self.pen(size, INK)
        taken = 0.0
        for key, value in block.rows:
            parts = (self.broken(key, COLUMN - 12), self.broken(value, self.epw - COLUMN))
            taken += above + size * LEADING * (1 + max(text.count("\n") for text in parts))
        return taken
