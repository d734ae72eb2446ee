"""The words: one source each, the same keys and blanks in every language, and everybody says the same."""

import json
import re
import string

import pytest

import demos
import model
from diagnosis import gate
from diagnosis.anatomy.measures import MEASURES, NOT_ASSESSED
from diagnosis.maps import explain
from diagnosis.maps.regions import OUTSIDE, REGIONS
from networks.header_checks import PLACES, SCALES
from reports import wording
from reports.measured import INDICES
from reports.style import OUTLINES
from reports.wording import Texts
from scans.folders.candidates import WHY_NOT
from studies import STUDIES, from_record, to_record
from tests.support import ROOT

TABLES = wording.translations()
OTHERS = [language for language in TABLES if language != "en"]
SOURCES = [
    *(file for package in ("reports", "server") for file in (ROOT / package).rglob("*.py")),
    *(ROOT / "web").glob("*.js"),
    *(ROOT / "web" / "pages").glob("*.html"),
    ROOT / "diagnose.py",
]
CODE = {file: file.read_text(encoding="utf-8") for file in SOURCES}


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def english() -> dict[str, str]:
    """What there is to translate: the phrases, and what stands beside the data that it describes."""
    words = dict(TABLES["en"])
    for study in STUDIES.values():
        words |= {f"{what}.{study.key}": getattr(study, what) for what in ("question", "use")}
        words[f"study.{study.key}"] = study.title
        words |= {f"class.{study.key}.{label.code}": label.name for label in study.labels}
    words |= {f"reason.{code}": text for code, text in gate.REASONS.items()}
    words |= {f"measure.{name}": asked.title for name, asked in MEASURES.items()}
    words |= {f"unseen.{name}": name for name in NOT_ASSESSED}
    titles = [model.read_header(path).title for path in model.list_weights(ROOT / "weights")]
    titles += [demos.TITLE, model.published_header().title]
    return words | {f"weights.{title}": title for title in titles}


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_has_every_key_with_the_same_blanks_and_no_other(language):
    table, wanted = TABLES[language], english()
    assert table.keys() == wanted.keys()
    for key, text in wanted.items():
        assert table[key].strip() and text.strip(), key
        assert blanks(table[key]) == blanks(text), key


def test_no_english_phrase_repeats_what_stands_beside_its_data():
    assert not [
        key for key in TABLES["en"] if re.match(r"(class|study|question|use|reason|weights|measure|unseen)\.", key)
    ]


def test_every_phrase_that_is_asked_for_is_there_and_every_one_there_is_asked_for():
    families = {  # keys that are put together, with what they may end in
        "region": {name for name, *_ in REGIONS} | {OUTSIDE},
        "method": set(explain.METHODS),
        "verdict": {gate.FIT, gate.DOUBTFUL, gate.UNFIT},
        "table": {gate.FIT, gate.DOUBTFUL, gate.UNFIT},
        "warning": {"empty", "mostly-outside"},
        "place": set(PLACES),
        "scale": set(SCALES),
        "step": {"read", "prepare", "check", "predict", "uncertainty", "measure"},
        "column": {"structure", "left", "right", "total", "share", "span", "centile"},
        "index": set(INDICES),
        "structure": set(OUTLINES),
        "person.sex": {"unknown", "F", "M"},
        "norms.who": {"any", "F", "M"},
        "outlines": {"left", "right"},
        "series": set(WHY_NOT),
        "viewer": {"axial", "coronal", "sagittal", "image"},
        "unit": {"years"},
    }
    put_together = {f"{family}.{end}" for family, ends in families.items() for end in ends}
    scans = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "scans").rglob("*.py"))
    refusals = set(re.findall(r'ScanError\(\s*"([a-z-]+)"', scans))
    assert len(refusals) > 15
    put_together |= {f"{what}.{code}" for code in refusals for what in ("error", "remedy")}
    literal = set()
    for text in CODE.values():
        literal |= set(re.findall(r"""\bt\(\s*["']([\w.-]+)["']""", text))
        literal |= set(re.findall(r"""(?:self|t|texts)[(\[]\s*["']([a-z]+(?:\.[a-z_.-]+)?)["']""", text))
    assert put_together <= TABLES["en"].keys()
    everything = "".join(CODE.values())
    unused = [
        key
        for key in TABLES["en"]
        if key not in put_together
        and not key.startswith(("error.", "remedy.", "metric.", "share.", "language.", "login."))
        and not re.search(rf"""["'`]{re.escape(key)}["'`]""", everything)
    ]
    assert unused == []
    missing = [key for key in literal if "." in key and not key.endswith(".") and key not in TABLES["en"]]
    assert missing == []


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_an_older_file_keeps_its_own_words(study):
    """Page, report and terminal take a study's English from the weights file, as the API does."""
    record = to_record(study) | {"question": "Is it so?", "title": "A title"}
    own = from_record(json.loads(json.dumps(record)))
    assert (Texts("en").question(own), Texts("en").study_title(own)) == ("Is it so?", "A title")
    assert Texts("fr").question(study) == study.question
    for code, label in zip(study.codes, study.labels, strict=True):
        assert Texts("en").class_name(study, code).lower() == label.name.lower()


def test_a_reason_that_no_language_knows_is_told_in_english(monkeypatch):
    monkeypatch.setitem(gate.REASONS, "new-one", "Too {much}. Take less.")
    finding = gate.Finding(gate.DOUBTFUL, "new-one", {"much": "red"})
    assert [Texts(language).reason(finding) for language in TABLES] == ["Too red. Take less."] * len(TABLES)


def test_the_language_is_the_browsers_where_it_is_known():
    assert [wording.language_of(asked) for asked in ("zh-CN,zh;q=0.9", "en-GB", "fr", "")] == [
        "zh",
        "en",
        "en",
        "en",
    ]
    assert wording.languages() == {"en": "English", "zh": "中文"}


def test_regions_come_most_first_and_without_specks():
    ranked = wording.ranked_regions({"deep": 0.2, "frontal": 0.7, "parietal": 0.001})
    assert [(name, shown) for name, _, shown in ranked] == [("frontal", "70 %"), ("deep", "20 %")]


def test_no_other_module_formats_a_percentage():
    for file, text in CODE.items():
        if file.name != "numbers.py" and file.suffix == ".py":
            assert not re.search(r":\.?\d*%\}|\} ?%", text), file
