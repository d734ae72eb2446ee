"""Studies as a command line asks for them: one of the tables, or one's own from a YAML or JSON file.

Its classes may be fewer, others may be gathered into them, or a number may take their place. What a file may say
stands in `FIELDS`; every entry is checked with words before it is believed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import studies
from data.tables import DataError
from networks import header_checks
from networks.header_checks import HeaderError, each, number, optional, table, text
from studies import Contract, Label, Study, Target

SUFFIXES = (".yaml", ".yml", ".json")
LIKE = "alzheimers"  # whose grid and network a volume study has where its file is silent
DEFAULT_IMAGE = "brain-tumour"  # and a study of pictures
MOST_BYTES = 1 << 20
# what a file may say: how it is checked, and what it means
FIELDS: dict[str, tuple[header_checks.Check, str]] = {
    "key": (text, "a short name for files and the API; the file's own where it is missing"),
    "title": (text, "a line for the list of studies"),
    "question": (text, "what is asked of a scan, in one line"),
    "use": (text, "what it is meant for, in one or two sentences"),
    "classes": (each(table(), 2, 1000), "a list of `code`, `name` and perhaps `severity` from 0 to 1"),
    "target": (table({"name": text, "unit": text}, ("name",)), "instead of classes: the `name` of a number"),
    "like": (text, "the key of the study that decides all that the file leaves open"),
    "contract": (table(), "`kind`, `shape`, `channels`, `spacing`, `place`, `scale`, `anchor` of the input"),
    "network": (text, "a network's name, or `package.module:Class` of your own"),
    "arguments": (table(), "of the network, by name"),
    "training": (table(), "defaults of train.py, such as `epochs: 20`"),
    "map": (table(others=text), "labels of the data that mean a class, such as `NC: CN`"),
}
LABEL = table({"code": text, "name": text, "severity": optional(number(0, 1))}, ("code",))
CONTRACT_FIELDS = set(asdict(Contract("", ())))


def study_of(
    named: str,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    target: str | None = None,
) -> Study:
    """The study that a command line names, with its classes chosen, gathered or replaced by a number."""
    study = from_file(Path(named)) if named.endswith(SUFFIXES) else studies.STUDIES.get(named)
    if study is None:
        raise DataError(
            f"--study {named}: there are {', '.join(sorted(studies.STUDIES))}; or give a file of your own that "
            f"ends in {', '.join(SUFFIXES)}"
        )
    if target:
        if classes or mapping:
            raise DataError("--target takes the place of the classes; leave --classes and --map out")
        return of_number(study, target)
    study = gathered(study, mapping) if mapping else study
    return chosen(study, classes) if classes else study


def pairs(words: str) -> dict[str, str]:
    """ "NC=CN,EMCI=MCI" as a table."""
    found: dict[str, str] = {}
    for word in words.split(","):
        label, sign, code = (part.strip() for part in word.partition("="))
        if not (label and sign and code) or label in found:
            raise DataError(f"--map {words}: give labels and what they mean, such as NC=CN,EMCI=MCI")
        found[label] = code
    return found


def gathered(study: Study, mapping: Mapping[str, str]) -> Study:
    """The study with other labels that mean its classes; classes that mean another one are no classes any more."""
    for label, code in mapping.items():
        if code not in study.codes:
            raise DataError(f"--map {label}={code}: the classes of {study.key} are {', '.join(study.codes)}")
        if code in mapping and mapping[code] != code:
            raise DataError(f"--map {label}={code}: {code} is itself to mean {mapping[code]}; map {label} there")
    labels = tuple(label for label in study.labels if mapping.get(label.code, label.code) == label.code)
    return with_labels(study, labels, {**study.aliases, **mapping})


def chosen(study: Study, classes: Sequence[str]) -> Study:
    """The study with these of its classes alone, in this order; cases of the others are left out."""
    known = {label.code: label for label in study.labels}
    stray = [code for code in classes if code not in known]
    if stray or len(set(classes)) < max(2, len(classes)):
        raise DataError(f"--classes {','.join(classes)}: name two or more of {', '.join(known)}, each once")
    left_out = {code: "" for code in known if code not in classes}
    left_out |= {label: "" for label, code in study.aliases.items() if code in left_out}
    return with_labels(study, tuple(known[code] for code in classes), {**study.aliases, **left_out})


def with_labels(study: Study, labels: tuple[Label, ...], aliases: dict[str, str]) -> Study:
    if len(labels) < 2:
        raise DataError(f"{study.key}: {len(labels)} class is left; two are the least to tell apart")
    before, after = (f" ({', '.join(label.code for label in some)})" for some in (study.labels, labels))
    title = study.title.removesuffix(before) + after
    return replace(study, labels=labels, aliases=aliases, title=title)


def of_number(study: Study, name: str, unit: str = "") -> Study:
    """A study of a number on the same pictures, with the same network."""
    unit = unit or ("years" if name == "age" else "")
    of_classes = ("severity_weight", "ends_first", "class_weights")
    training = {key: value for key, value in study.training.items() if key not in of_classes}
    said = f"{name} ({unit})" if unit else name
    looked_at = "scan" if study.contract.kind == "volume" else "picture"
    return replace(
        study,
        key=f"{study.key}-{name}",
        title=f"{name.capitalize()} from a {looked_at}",
        question=f"Which {said} does this {looked_at} look like?",
        use=f"Research on how {name} shows in a {looked_at}. It says nothing of illness.",
        labels=(Label(name, said),),
        target=Target(unit),
        aliases={},
        training=training,
    )


def from_file(path: Path) -> Study:
    """The study that a YAML or JSON file describes."""
    said = contents(path)
    if not isinstance(said, dict):
        raise DataError(f"{path}: holds no table; write lines such as `title: My study`")
    unknown = sorted(set(map(str, said)) - set(FIELDS))
    if unknown:
        raise DataError(f"{path}: no field is called {', '.join(unknown)}; there are {', '.join(FIELDS)}")
    try:
        for name, value in said.items():
            FIELDS[name][0](value, name)
        return built(path.stem, said)
    except (HeaderError, DataError) as error:
        raise DataError(f"{path}: {error}") from error


def contents(path: Path) -> Any:
    """What a file says, as plain tables, lists, texts and numbers."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: larger than {MOST_BYTES} bytes; a study is a page of text")
        words = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; give a study's file or key") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from error
    try:
        if path.suffix == ".json":
            return studies.from_json(words)
        import yaml  # here: few command lines ever need it

        try:
            return json.loads(studies.to_json(yaml.safe_load(words)))  # dates and such are no entries of ours
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(str(error).replace("\n", " ")) from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be made out ({str(error)[:200]})") from error


def built(stem: str, said: dict[str, Any]) -> Study:
    """The study of a checked table; what it leaves open is that of the study that it is like."""
    image = said.get("contract", {}).get("kind") == "image"
    like = said.get("like", DEFAULT_IMAGE if image else LIKE)
    if like not in studies.STUDIES:
        raise DataError(f"like is {like!r}; there are {', '.join(sorted(studies.STUDIES))}")
    base = studies.STUDIES[like]
    if ("classes" in said) == ("target" in said):
        raise DataError("give either `classes` or `target`")
    network = said.get("network", base.network)
    study = replace(
        base,
        key=said.get("key", stem),
        title=said.get("title", stem),
        use=said.get("use", "Research of one's own."),
        contract=contract_of(base.contract, said.get("contract", {})),
        network=network,
        networks=tuple(dict.fromkeys((network, *base.networks))),
        arguments=said.get("arguments", base.arguments if network == base.network else {}),
        training={**base.training, **said.get("training", {})},
    )
    check_key(study.key)
    if "target" in said:
        number_of = of_number(study, said["target"]["name"], said["target"].get("unit", ""))
        own = {name: said[name] for name in ("title", "use") if name in said}
        study = replace(number_of, key=study.key, **own)
    else:
        labels = tuple(label_of(one, place) for place, one in enumerate(said["classes"]))
        if len({label.code for label in labels}) < len(labels):
            raise DataError(f"classes name a code twice: {', '.join(label.code for label in labels)}")
        study = replace(study, labels=labels, question=f"Which of {', '.join(one.code for one in labels)}?")
        if "map" in said:
            aliases = dict(said["map"])
            study = replace(gathered(study, aliases), title=study.title)
    return replace(study, question=said["question"]) if "question" in said else study


def label_of(said: Any, place: int) -> Label:
    LABEL(said, f"classes[{place}]")
    unknown = sorted(set(said) - {"code", "name", "severity"})
    if unknown:
        raise DataError(f"classes[{place}] has {', '.join(unknown)}; known are code, name, severity")
    return Label(said["code"], said.get("name", said["code"]), said.get("severity"))


def contract_of(base: Contract, said: dict[str, Any]) -> Contract:
    """The input contract, checked as that of a weights file is."""
    unknown = sorted(set(said) - CONTRACT_FIELDS)
    if unknown:
        raise DataError(f"contract has {', '.join(unknown)}; known are {', '.join(sorted(CONTRACT_FIELDS))}")
    record = {**asdict(base), **said}
    header_checks.CONTRACT(record, "contract")
    header_checks.check_grid(record, "contract")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    return Contract(**values)


def check_key(key: str) -> None:
    """A key is the start of a file's name."""
    if not key or not all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in key):
        raise DataError(f"key is {key!r}; use letters, digits, - and _ alone")


def schema() -> dict[str, Any]:
    """The fields as a JSON Schema, for editors that check while one types; `docs/study.schema.json` holds it."""
    kinds = {"classes": "array", "target": "object", "contract": "object", "arguments": "object"}
    kinds |= {"training": "object", "map": "object"}
    properties: dict[str, Any] = {
        name: {"type": kinds.get(name, "string"), "description": meaning} for name, (_, meaning) in FIELDS.items()
    }
    label = {"code": {"type": "string"}, "name": {"type": "string"}}
    properties["classes"]["items"] = {
        "type": "object",
        "required": ["code"],
        "additionalProperties": False,
        "properties": {**label, "severity": {"type": "number", "minimum": 0, "maximum": 1}},
    }
    properties["target"] |= {
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "unit": {"type": "string"}},
    }
    properties["like"]["enum"] = sorted(studies.STUDIES)
    properties["contract"] |= {
        "additionalProperties": False,
        "properties": {
            "kind": {"enum": list(header_checks.KINDS)},
            "place": {"enum": list(header_checks.PLACES)},
            "scale": {"enum": list(header_checks.SCALES)},
            **{name: {"type": "array", "items": {"type": "number"}} for name in ("shape", "spacing", "anchor")},
            "channels": {"type": "integer", "minimum": 1},
            "planes": {"type": ["integer", "null"]},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of one's own for train.py --study",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "oneOf": [{"required": ["classes"]}, {"required": ["target"]}],
    }
