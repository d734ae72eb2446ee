"""The report as one HTML file that asks for nothing from outside and prints to A4, from a tornado template."""

import base64
from datetime import datetime, timezone
from functools import cache

import tornado.template

from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports.content import bars, content
from reports.curves import panels, svg
from reports.cuts import overview
from reports.figures import png, slices
from reports.style import ACCENT, PLAIN
from reports.wording import WEB, Texts


@cache
def templates() -> tornado.template.Loader:
    """The pages' templates, the report's among them, which escape what they are given."""
    return tornado.template.Loader(str(WEB / "pages"), autoescape="xhtml_escape")


def html(
    diagnosis: Diagnosis, heat_map: Map | None = None, language: str = "en", made: datetime | None = None
) -> str:
    """The report as one file, the notice on every printed page."""
    t = Texts(language)
    blocks = content(diagnosis, heat_map, t, made or datetime.now(timezone.utc))
    drawn = {"planes": slices(diagnosis, heat_map)}
    if any(block.kind == "overview" for block in blocks):
        drawn["overview"] = png(overview(diagnosis, heat_map))
    text = (
        templates()
        .load("report.html")
        .generate(
            t=t,
            file=diagnosis.file,
            blocks=blocks,
            bars=bars(diagnosis.record(), diagnosis.weights.study, t),
            pictures={kind: base64.b64encode(body).decode() for kind, body in drawn.items()},
            curves=[svg(each) for each in panels(diagnosis.norms, diagnosis.measures, diagnosis.person).values()],
            style=(WEB / "report.css").read_text(encoding="utf-8"),
            colours={True: ACCENT, False: PLAIN},
        )
    )
    return text.decode()
