"""The report as one HTML file that asks for nothing from outside and prints to A4."""

import base64
import html as markup
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial

from diagnosis.diagnoser import Diagnosis
from diagnosis.explain import Map
from reports.content import Block, content
from reports.figures import ACCENT, PLAIN, WEB, class_name, slices, texts


def html(
    diagnosis: "Diagnosis", found: Map | None = None, language: str = "en", made: datetime | None = None
) -> str:
    """The report as one file that asks for nothing from outside and prints to A4, the notice on every page."""
    say, draw = texts(language), {"chart": partial(bars, diagnosis), "planes": partial(picture, diagnosis, found)}
    blocks = content(diagnosis, found, language, made or datetime.now(timezone.utc))
    parts, fresh = [], ""
    for block in blocks:
        if block.kind == "break":
            fresh = ' class="break"'
            continue
        parts.append(draw[block.kind](say) if block.kind in draw else MARKUP[block.kind](block, fresh))
        fresh = ""
    body, style = "\n".join(parts), (WEB / "report.css").read_text(encoding="utf-8")
    title = markup.escape(f"{say['report.title']}: {diagnosis.file}")
    tag = {"zh": "zh-CN"}.get(language, "en")
    return (
        f'<!doctype html>\n<html lang="{tag}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
        # a table's foot is repeated on every printed page: it keeps the room that the notice takes
        f'<table class="sheet"><tfoot><tr><td></td></tr></tfoot><tbody><tr><td>\n{body}\n'
        f"</td></tr></tbody></table>\n<footer>{markup.escape(say['notice'])}</footer>\n</body>\n</html>\n"
    )


def line(tag: str, kind: str, block: Block, fresh: str) -> str:
    return f'<{tag} class="{kind}" style="color: {block.colour}">{markup.escape(block.text)}</{tag}>'


def table(block: Block, fresh: str) -> str:
    rows = (f"<tr><td>{markup.escape(key)}</td><td>{markup.escape(value)}</td></tr>" for key, value in block.rows)
    return f'<table class="rows">{"".join(rows)}</table>'


MARKUP: dict[str, Callable[[Block, str], str]] = {
    "title": lambda block, fresh: f"<h1>{markup.escape(block.text)}</h1>",
    "heading": lambda block, fresh: f"<h2{fresh}>{markup.escape(block.text)}</h2>",
    "big": partial(line, "p", "big"),
    "text": partial(line, "p", "text"),
    "small": partial(line, "p", "small"),
    "rows": table,
}


def bars(diagnosis: "Diagnosis", say: dict[str, str]) -> str:
    """The chart in HTML, which needs no font of ours."""
    rows = []
    for code in diagnosis.weights.study.by_severity:
        value = diagnosis.probabilities[code]
        colour = ACCENT if code == diagnosis.label else PLAIN
        name = markup.escape(f"{class_name(diagnosis, code, say)} · {code}")
        line = ends = ""
        if diagnosis.intervals:
            low, high = diagnosis.intervals[code]
            line = f'<b style="margin-left: {low:.1%}; width: {high - low:.1%}"></b>'
            ends = f"<small>{low:.1%}–{high:.1%}</small>"
        rows.append(
            f'<div class="bar"><span>{name}</span><span class="track"><i style="width: {value:.1%}; '
            f'background: {colour}"></i>{line}</span><span>{value:.1%}{ends}</span></div>'
        )
    return "".join(rows)


def picture(diagnosis: "Diagnosis", found: Map | None, say: dict[str, str]) -> str:
    inlined = base64.b64encode(slices(diagnosis, found)).decode()
    return f'<img alt="{markup.escape(say["report.pictures"])}" src="data:image/png;base64,{inlined}">'
