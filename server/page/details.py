"""What the page tells of a result when asked for details: the file, the grid, the time, the network."""

from typing import Any

from model import Weights
from reports import acquired, numbers
from reports.wording import Texts
from server.state import Result

Facts = list[tuple[str, str]]


def file_name(t: Texts, result: Result) -> str:
    return result.record["file"] if result.upload.ours else t("result.example")


def details(t: Texts, result: Result, weights: Weights) -> list[tuple[str, Facts]]:
    """Four short lists, each under its heading."""
    return [
        (t("details.scan"), of_file(t, result, weights)),
        (t("details.prepared"), of_grid(t, weights)),
        (t("details.time"), of_time(t, result.record)),
        (t("details.network"), of_network(t, result.record, weights)),
    ]


def of_file(t: Texts, result: Result, weights: Weights) -> Facts:
    facts = result.facts
    rows = [
        (t("fact.file"), file_name(t, result)),
        (t("fact.format"), facts.get("format")),
        (t("fact.shape"), numbers.sizes(facts.get("shape", ()))),
        (t("fact.spacing"), numbers.sizes(facts.get("spacing") or (), "mm")),
    ]
    if weights.contract.kind == "volume":
        rows.append(
            (t("fact.orientation"), facts["orientation"] if facts.get("affine_known") else t("fact.unknown"))
        )
        rows.append((t("fact.oblique"), t("fact.yes" if facts.get("oblique") else "fact.no")))
    rows += [(t("fact.dtype"), facts.get("dtype")), (t("fact.modality"), facts.get("modality"))]
    rows += acquired.facts(t, result.record.get("acquisition"))
    rows += [(t("fact.repaired"), f"{facts['repaired']:,}")] if facts.get("repaired") else []
    return [(name, value) for name, value in rows if value]


def of_grid(t: Texts, weights: Weights) -> Facts:
    contract = weights.contract
    grid = (numbers.sizes(contract.shape), numbers.sizes(contract.spacing, "mm"))
    return [
        (t("fact.grid"), " · ".join(part for part in grid if part)),
        (t("fact.place"), t(f"place.{contract.place}")),
        (t("fact.scale"), t(f"scale.{contract.scale}")),
    ]


def of_time(t: Texts, record: dict[str, Any]) -> Facts:
    seconds = record["seconds"]
    return [
        *((t(f"step.{step}"), t.seconds(spent)) for step, spent in seconds.items()),
        (t("fact.total"), t.seconds(sum(seconds.values()))),
        (t("fact.versions"), " · ".join(f"{name} {value}" for name, value in record["versions"].items())),
    ]


def of_network(t: Texts, record: dict[str, Any], weights: Weights) -> Facts:
    header = weights.header
    rows = [
        (t("fact.weights"), t.weights_title(weights)),
        (t("fact.sha"), f"{weights.sha256[:16]}…"),
        (t("fact.precision"), record["precision"]),
        (t("fact.use"), t.use(weights.study)),
        *t.shares(record["shares"]),
    ]
    training, scores = header.training, header.scores
    trained = ". ".join(part for part in (t.learned_from(training), training.get("about")) if part)
    rows += [(t("fact.trained"), trained)] if trained else []
    whole = {name: score for name, score in header.metrics.items() if "." not in name}
    cohort = f"{scores.get('cohort', '')} · {scores.get('subjects', '?')}"
    rows.append((t("fact.scores"), cohort if whole else t("fact.noscores")))
    return [*rows, *((t.metric(name), numbers.score_interval(score)) for name, score in whole.items())]
