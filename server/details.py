"""What the page tells of a result when asked for details: the file, the grid, the time, the network."""

from model import Weights
from reports.wording import Texts, interval
from server.state import Result


def file_name(t: Texts, result: Result) -> str:
    return result.record["file"] if result.upload.ours else t("result.example")


def details(t: Texts, result: Result, weights: Weights) -> list[tuple[str, list[tuple[str, str]]]]:
    """Four short lists: the file, the grid, the time, the network."""
    facts, record = result.facts, result.record
    header, contract = weights.header, weights.contract
    yes = {True: t("fact.yes"), False: t("fact.no")}
    read = [(t("fact.file"), file_name(t, result)), (t("fact.format"), facts.get("format"))]
    read += [(t("fact.shape"), " × ".join(map(str, facts.get("shape", ()))))]
    if facts.get("spacing"):
        read.append((t("fact.spacing"), " × ".join(f"{mm:g}" for mm in facts["spacing"]) + " mm"))
    if result.record and contract.kind == "volume":
        read.append(
            (t("fact.orientation"), facts["orientation"] if facts.get("affine_known") else t("fact.unknown"))
        )
        read.append((t("fact.oblique"), yes[bool(facts.get("oblique"))]))
    read.append((t("fact.dtype"), facts.get("dtype")))
    read += [(t("fact.modality"), facts["modality"])] if facts.get("modality") else []
    read += [(t("fact.repaired"), f"{facts['repaired']:,}")] if facts.get("repaired") else []
    grid = " × ".join(map(str, contract.shape))
    spacing = " × ".join(f"{mm:g}" for mm in contract.spacing)
    prepared = [
        (t("fact.grid"), f"{grid}{f' · {spacing} mm' if spacing else ''}"),
        (t("fact.place"), t(f"place.{contract.place}")),
        (t("fact.scale"), t(f"scale.{contract.scale}")),
    ]
    seconds, versions = record["seconds"], record["versions"]
    times = [(t(f"step.{step}"), t("seconds", value=f"{spent:.2f}")) for step, spent in seconds.items()]
    times.append((t("fact.total"), t("seconds", value=f"{sum(seconds.values()):.2f}")))
    times.append((t("fact.versions"), " · ".join(f"{name} {value}" for name, value in versions.items())))
    network = [
        (t("fact.weights"), t.weights_title(weights)),
        (t("fact.sha"), f"{weights.sha256[:16]}…"),
        (t("fact.use"), t.of_study("use", weights.study, weights.study.use)),
    ]
    network += [
        (
            t(f"share.{name}") if t.has(f"share.{name}") else name,
            " · ".join(f"{part}: {share:.0%}" for part, share in parts.items()),
        )
        for name, parts in record["shares"].items()
    ]
    training = header.get("training") or {}
    trained = ". ".join(part for part in (t.learned(training), training.get("about")) if part)
    network += [(t("fact.trained"), trained)] if trained else []
    scores = header.get("scores") or {}
    whole = {name: score for name, score in (scores.get("metrics") or {}).items() if "." not in name}
    cohort = f"{scores.get('cohort', '')} · {scores.get('subjects', '?')}"
    network.append((t("fact.scores"), cohort if whole else t("fact.noscores")))
    network += [(t.metric(name), interval(score)) for name, score in whole.items()]
    return [
        (t("details.scan"), read),
        (t("details.prepared"), prepared),
        (t("details.time"), times),
        (t("details.network"), network),
    ]
