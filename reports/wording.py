"""What the page says: the words of each language, and how a result, a reason or a score is put into them.

The words themselves stand in `web/texts.json`, and those shared with the report in `web/report.json`.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from diagnosis.gate import Finding
from model import Weights
from studies import Study

WEB = Path(__file__).resolve().parent.parent / "web"
LANGUAGES = {"en": "English", "zh": "中文"}


@cache
def tables() -> dict[str, dict[str, str]]:
    """The words by language and key: the page's own, and those that it shares with the report."""
    found: dict[str, dict[str, str]] = {}
    for name in ("report.json", "texts.json"):
        for language, words in json.loads((WEB / name).read_text(encoding="utf-8")).items():
            found.setdefault(language, {}).update(words)
    return found


class Texts:
    """The words of one language; English where one is missing."""

    def __init__(self, language: str):
        self.tables = tables()
        self.language = language if language in self.tables else "en"

    def has(self, key: str) -> bool:
        return key in self.tables["en"]

    def __call__(self, key: str, **values: Any) -> str:
        words = self.tables[self.language].get(key) or self.tables["en"][key]
        return words.format(**values) if values else words

    def some(self, *starts: str) -> dict[str, str]:
        return {key: self(key) for key in self.tables["en"] if key.startswith(starts)}

    def of_study(self, what: str, study: Study, otherwise: str) -> str:
        key = f"{what}.{study.key}"
        return self(key) if self.has(key) else otherwise

    def study_title(self, study: Study) -> str:
        return self.of_study("study", study, study.title)

    def class_name(self, study: Study, code: str) -> str:
        key = f"class.{study.key}.{code}"
        if self.has(key):
            return self(key)
        return next(label.name for label in study.labels if label.code == code)

    def error_title(self, code: str) -> str:
        return self(f"error.{code}" if self.has(f"error.{code}") else "error.other")

    def reason(self, finding: Finding) -> str:
        key = f"reason.{finding.code}"
        return self(key, **finding.values) if self.has(key) else finding.text

    def measured(self, header: dict[str, Any]) -> str:
        """The first score that the weights carry, in a sentence, or that there is none."""
        scores = header.get("scores") or {}
        for name, score in (scores.get("metrics") or {}).items():
            return self(
                "start.measured",
                metric=self.metric(name),
                value=interval(score),
                subjects=scores.get("subjects", "?"),
                cohort=scores.get("cohort", "?"),
            )
        return self("start.untrained")

    def learned(self, training: dict[str, Any]) -> str:
        counts = training.get("counts")
        return self("report.learned", **counts) if counts else training.get("data", "")

    def weights_title(self, weights: Weights) -> str:
        title = weights.header.get("title", weights.name)
        return self(f"weights.{title}") if self.has(f"weights.{title}") else title

    def metric(self, name: str) -> str:
        return self(f"metric.{name}") if self.has(f"metric.{name}") else name


def span(low: float, high: float) -> str:
    """An interval of a probability."""
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def interval(score: dict[str, Any]) -> str:
    """A score with its interval; a dash where one could not be had."""
    value, low, high = ("–" if score.get(key) is None else f"{score[key]:.2f}" for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"


def percent(share: float) -> str:
    """A probability for a person: what is not quite none or all does not look like it."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def language_of(accepted: str) -> str:
    """The page's language for what the browser prefers."""
    return "zh" if accepted.lower().startswith("zh") else "en"
