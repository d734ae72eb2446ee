"""Every phrase that a person reads, in each language, on the page, in the report and on the command line.

English stands once: what a study asks and calls its classes in `studies.py` (and its copy in a weights file), why
a scan is doubted in `diagnosis.gate`, all other phrases in `web/translations/en.json`. Each further language is
one file beside that one, which holds the same phrases and translates the studies and the reasons.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from diagnosis.anatomy.measures import MEASURES, Value
from diagnosis.diagnoser import Diagnosis
from diagnosis.gate import Finding
from model import Weights
from networks.header import Header
from reports import numbers
from studies import NOTICE, Study

WEB = Path(__file__).resolve().parent.parent / "web"
ENGLISH = "en"
MAIN = ("ventricles", "ventricles_share", "hippocampus_left", "hippocampus_right")  # measures to know first
MAIN_CENTILES = ("ventricles_share", "hippocampi_share", "brain_share")


@cache
def translations() -> dict[str, dict[str, str]]:
    """The phrases by language and key, English first."""
    files = sorted((WEB / "translations").glob("*.json"), key=lambda file: (file.stem != ENGLISH, file.stem))
    tables = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    tables[ENGLISH]["notice"] = NOTICE
    return tables


def languages() -> dict[str, str]:
    """The name of each language in that language itself."""
    return {language: table["language.name"] for language, table in translations().items()}


def language_of(accepted: str) -> str:
    """The page's language for what the browser prefers."""
    asked = accepted.lower()
    return next((language for language in translations() if asked.startswith(language)), ENGLISH)


class Texts:
    """The words of one language; English for a language that is not there."""

    def __init__(self, language: str):
        self.language = language if language in translations() else ENGLISH
        self.table = translations()[self.language]

    def __call__(self, key: str, **values: Any) -> str:
        words = self.table[key]
        return words.format(**values) if values else words

    def has(self, key: str) -> bool:
        return key in self.table

    def starting(self, *starts: str) -> dict[str, str]:
        """The phrases whose keys start so, for a script."""
        return {key: words for key, words in self.table.items() if key.startswith(starts)}

    @property
    def speaks_english(self) -> bool:
        return self.language == ENGLISH

    def translated(self, key: str, english: str) -> str:
        """What stands in English beside the data that it describes."""
        return english if self.speaks_english else self.table.get(key, english)

    # --- a study and its weights ---------------------------------------------------------------------------

    def study_title(self, study: Study) -> str:
        return self.translated(f"study.{study.key}", study.title)

    def question(self, study: Study) -> str:
        return self.translated(f"question.{study.key}", study.question)

    def use(self, study: Study) -> str:
        return self.translated(f"use.{study.key}", study.use)

    def class_name(self, study: Study, code: str) -> str:
        """The class in words, with a capital, for it stands alone."""
        name = next(label.name for label in study.labels if label.code == code)
        return capital(self.translated(f"class.{study.key}.{code}", name))

    def weights_title(self, weights: Weights) -> str:
        title = weights.header.title
        return capital(self.translated(f"weights.{title}", title))

    def learned_from(self, training: Mapping[str, Any]) -> str:
        counts = training.get("counts")
        return self("report.learned", **counts) if counts else str(training.get("data", ""))

    def metric(self, name: str) -> str:
        return self.table.get(f"metric.{name}", name)

    def first_score(self, header: Header) -> str:
        """The first score that the weights carry, in a sentence, or that there is none."""
        scores = header.scores
        for name, score in header.metrics.items():
            return self(
                "start.measured",
                metric=self.metric(name),
                value=numbers.score_interval(score),
                subjects=scores.get("subjects", "?"),
                cohort=scores.get("cohort", "?"),
            )
        return self("start.untrained")

    # --- an answer -----------------------------------------------------------------------------------------

    def verdict(self, verdict: str) -> str:
        return self(f"verdict.{verdict}")

    def reason(self, finding: Finding) -> str:
        words = self.translated(f"reason.{finding.code}", "")
        return words.format(**finding.values) if words else finding.text

    def coverage(self, level: float, calibrated: bool) -> str:
        """What a prediction set promises."""
        return self("set.promise", level=numbers.whole_percent(level)) if calibrated else self("set.raw")

    def prediction_set(self, codes: Iterable[str]) -> str:
        return f" {self('set.or')} ".join(codes)

    def shares(self, shares: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
        """Named shares, such as an attention over levels: what is shared, and a line of who has how much."""
        return [
            (
                self.table.get(f"share.{name}", name),
                " · ".join(f"{part}: {numbers.whole_percent(share)}" for part, share in parts.items()),
            )
            for name, parts in shares.items()
        ]

    def seconds(self, value: float) -> str:
        return self("seconds", value=numbers.seconds(value))

    def number(self, study: Study, value: float) -> str:
        """A study's number with its unit."""
        unit = study.target.unit if study.target else ""
        return f"{numbers.amount(value)} {self.table.get(f'unit.{unit}', unit)}".rstrip()

    def number_span(self, study: Study, interval: Sequence[float] | None, level: float) -> str:
        """Where the true number lies, as far as the calibration can promise."""
        if interval is None:
            return self("number.no_interval")
        low, high = (numbers.amount(end) for end in interval)
        span = self.number(study, interval[1]).replace(high, f"{low}–{high}", 1)
        return f"{span} {self.coverage(level, True)}"

    def line(self, diagnosis: Diagnosis) -> str:
        """An answer in one line, its reasons below it."""
        verdict = self.verdict(diagnosis.verdict)
        said = verdict
        if diagnosis.label and diagnosis.probabilities and diagnosis.set:
            chance = numbers.percent(diagnosis.probabilities[diagnosis.label])
            if diagnosis.intervals:
                chance += f" ({numbers.percent_span(*diagnosis.intervals[diagnosis.label])})"
            name = self.class_name(diagnosis.weights.study, diagnosis.label)
            promise = self.coverage(diagnosis.level, diagnosis.weights.header.calibrated)
            spent = self.seconds(sum(diagnosis.seconds.values()))
            said = f"{diagnosis.label} {chance}  {name}; "
            said += f"{self.prediction_set(diagnosis.set)} {promise}; {verdict}; {spent}"
        elif diagnosis.label and diagnosis.value is not None:
            study = diagnosis.weights.study
            spent = self.seconds(sum(diagnosis.seconds.values()))
            said = f"{self.class_name(study, diagnosis.label)}: {self.number(study, diagnosis.value)}; "
            said += f"{self.number_span(study, diagnosis.interval, diagnosis.level)}; {verdict}; {spent}"
        if diagnosis.measures:
            said += f"\n  {self.main_measures(diagnosis.measures)}"
            said += f"\n  {self.main_centiles(diagnosis)}" if diagnosis.norms else ""
        return "\n".join([said, *(f"  – {self.reason(finding)}" for finding in diagnosis.findings)])

    def main_centiles(self, diagnosis: Diagnosis) -> str:
        """The centiles to know first, and among whom, or why there are none."""
        record = diagnosis.record()
        said, shown = self.norms(record["norms"], record["person"]), []
        for name in MAIN_CENTILES:
            centile = self.centile(record["measures"][name], record["norms"])
            shown += [f"{self.measure_name(name)}: {self('column.centile').lower()} {centile}"] if centile else []
        return "\n  ".join([*shown, said])

    # --- measures ------------------------------------------------------------------------------------------

    def measure_name(self, name: str) -> str:
        return self.translated(f"measure.{name}", MEASURES[name].title)

    def not_assessed(self, names: Iterable[str]) -> str:
        """What a scan like this cannot show, in a sentence."""
        kinds = [self.translated(f"unseen.{name}", name) for name in names]
        return self("measures.unseen", names=self("measures.comma").join(kinds))

    def main_measures(self, measures: Mapping[str, Value]) -> str:
        """The measures to know first, in one line."""
        shown = {name: numbers.measure(value.value, MEASURES[name].unit, MEASURES[name].digits)
                 for name, value in measures.items()}  # fmt: skip
        return self("measures.main", **{name: shown[name] for name in MAIN})

    def centile(self, measure: Mapping[str, Any], norms: Mapping[str, Any] | None) -> str:
        """A measure's centile and how sure it is, from the record of both; nothing where there is none."""
        if measure["centile"] is None or norms is None:
            return ""
        shown = numbers.centile(measure["centile"], tuple(norms["outermost"]))
        return f"{shown} ({numbers.centile_span(*measure['centile_range'])})"

    def norms(self, norms: Mapping[str, Any] | None, person: Mapping[str, Any] | None) -> str:
        """With whom the measures are compared, or why with nobody, in a sentence."""
        if norms is None:
            return self("norms.none")
        first, last = (numbers.age(end) for end in norms["ages"])
        known = {"people": norms["people"], "first": first, "last": last}
        if person is None or norms["why_none"] == "no-age":
            return self("norms.no-age", **known)
        age = numbers.age(person["age"])
        if norms["why_none"]:
            return self("norms.outside", age=age, **known)
        level = numbers.whole_percent(norms["level"])
        return self("norms.compared", age=age, who=self(f"norms.who.{norms['sex']}"), level=level, **known)

    # --- a refusal -----------------------------------------------------------------------------------------

    def error_title(self, code: str) -> str:
        return self.table.get(f"error.{code}", self("error.other"))

    def remedy(self, code: str) -> str:
        return self.table.get(f"remedy.{code}", self("remedy.other"))


def capital(name: str) -> str:
    return name[:1].upper() + name[1:]


LEAST_SHARE = 0.01  # of a map: regions with less are not listed


def ranked_regions(shares: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """The regions in which a map lies, most first: key, share, and the share as it is shown."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return [(name, share, numbers.whole_percent(share)) for name, share in ranked if share >= LEAST_SHARE]
