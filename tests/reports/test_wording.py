"""Every word for people: in each language, with the same blanks."""

import json
import re
from pathlib import Path

from diagnosis import explain, gate
from diagnosis.regions import OUTSIDE, REGIONS
from reports import figures
from reports.content import TONES
from reports.figures import WEB
from tests.support import ROOT


def test_both_languages_have_every_text_with_the_same_blanks():
    table = json.loads((WEB / "report.json").read_text(encoding="utf-8"))
    assert set(table) == {"en", "zh"}
    assert set(table["en"]) == set(table["zh"])
    for key, text in table["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", table["zh"][key])), key


def test_every_text_that_the_code_asks_for_is_there():
    say = figures.texts("zh")
    regions = {name for name, *_ in REGIONS} | {OUTSIDE}
    wanted = {f"region.{name}" for name in regions} | {f"method.{name}" for name in explain.METHODS}
    wanted |= {f"verdict.{verdict}" for verdict in TONES} | {"notice"}
    wanted |= {"warning.mostly-outside", "warning.empty"}
    code = "".join(path.read_text(encoding="utf-8") for path in Path(figures.__file__).parent.glob("*.py"))
    wanted |= set(re.findall(r'say\["([^"{]+)"\]', code))
    assert wanted <= set(say)
    for code, reason in gate.REASONS.items():  # a reason without a translation is told in English
        blanks = set(re.findall(r"\{(\w+)", say.get(f"reason.{code}", "")))
        assert blanks <= set(re.findall(r"\{(\w+)", reason)), code


def test_both_tables_hold_the_same_keys_and_values():
    tables = json.loads((ROOT / "web" / "texts.json").read_text(encoding="utf-8"))
    assert set(tables) == {"en", "zh"}
    assert tables["en"].keys() == tables["zh"].keys()
    for key, words in tables["en"].items():
        assert words.strip(), key
        assert set(re.findall(r"\{\w+", words)) == set(re.findall(r"\{\w+", tables["zh"][key])), key


def test_every_refusal_and_reason_has_its_words():
    root = ROOT
    words = json.loads((root / "web" / "texts.json").read_text(encoding="utf-8"))["zh"]
    code = "".join(file.read_text(encoding="utf-8") for file in (root / "scans").glob("*.py"))
    refusals = set(re.findall(r'ScanError\(\s*"([a-z-]+)"', code))
    assert len(refusals) > 15
    assert {f"{what}.{code}" for code in refusals for what in ("error", "remedy")} <= words.keys()
    assert {f"reason.{code}" for code in gate.REASONS} <= words.keys()
