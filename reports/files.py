"""The report of a diagnosis as files in a folder: HTML, PDF, JSON and pictures."""

from datetime import datetime, timezone
from pathlib import Path

from diagnosis.diagnoser import Diagnosis
from diagnosis.maps.explain import Map
from reports.content import data
from reports.figures import slices
from reports.html import html
from reports.pdf import pdf
from scans.files import unused
from studies import to_json


def write(diagnosis: Diagnosis, heat_map: Map | None, folder: Path, language: str = "en") -> list[Path]:
    """The report as .html, .pdf, .json and .png files in a folder, named after the scan's cleaned name.

    A second scan of that name gets a number: no report takes the place of another.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = parts(diagnosis, heat_map, language)
    name = unused(folder, diagnosis.file, tuple(made))
    paths = [folder / f"{name}{suffix}" for suffix in made]
    for path, body in zip(paths, made.values(), strict=True):
        path.write_bytes(body)
    return paths


def parts(diagnosis: Diagnosis, heat_map: Map | None, language: str = "en") -> dict[str, bytes]:
    """The report's files by how their names end."""
    made = datetime.now(timezone.utc)
    text = to_json(data(diagnosis, heat_map, language, made), indent=1)
    return {
        ".html": html(diagnosis, heat_map, language, made).encode(),
        ".pdf": pdf(diagnosis, heat_map, language, made),
        ".json": text.encode(),
        ".png": slices(diagnosis, heat_map),
    }
