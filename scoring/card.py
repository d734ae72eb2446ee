"""The model card of a weights file: what was learned from whom, how well, and its limits.

The headings follow CLAIM and TRIPOD+AI where they apply. Everything said comes from the header; what the header
does not know is said to be unknown.
"""

from typing import Any

from networks.header import Header
from studies import NOTICE

# The scores of the whole, in the order of the card; the rest is listed class by class.
SCORES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "one_step_accuracy": "Accuracy, one step of severity off allowed",
    "severity_correlation": "Correlation of expected severity with the labels'",
    "roc_auc": "ROC-AUC, mean of one class against the rest",
    "pr_auc": "Area below precision over recall, mean of one class against the rest",
    "kappa": "Cohen's kappa (linear weights where classes have an order)",
    "brier": "Brier score (0 is best)",
    "ece": "Expected calibration error (0 is best)",
    "ece_unscaled": "The same, before temperature scaling",
    "coverage": "Prediction sets at 90 %: share that holds the truth",
    "set_size": "Prediction sets at 90 %: mean number of classes",
    "mae": "Mean absolute error",
    "rmse": "Root of the mean squared error",
    "bias": "Mean error",
    "r2": "R², the share of variance explained",
    "pearson": "Pearson's correlation with the truth",
    "interval_width": "Prediction intervals at 90 %: width",
}
BY_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision (PPV)",
    "npv": "NPV",
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
}
FEW_IN_GROUP = 20  # people; a group with fewer tells little
PART_NAMES = {"train": "to learn from", "val": "to validate", "test": "to test"}


def card(header: Header) -> str:
    """The card as Markdown."""
    sections = {
        "": f"# {header.title}\n\n**{NOTICE}**",
        "Intended use": intended(header),
        "Data": data(header),
        "Method": method(header),
        "Results": results(header.scores),
        "Calibration and uncertainty": calibration(header),
        "Limits": limits(header),
        "How to make it again": again(header.training),
    }
    return "\n\n".join(f"## {name}\n\n{text}" if name else text for name, text in sections.items() if text) + "\n"


def intended(header: Header) -> str:
    study = header.study
    classes = "; ".join(f"{label.code}: {label.name}" for label in study.labels)
    meant = "; ".join(f"{label} means {code}" for label, code in study.aliases.items() if code)
    left_out = ", ".join(label for label, code in study.aliases.items() if not code)
    classes += f". In the data {meant}" if meant else ""
    classes += f". Left out: {left_out}" if left_out else ""
    kind = "Number" if study.target else "Classes"
    return (
        f"{study.use}\n\nQuestion: {study.question} {kind}: {classes}.\n\nNot for: deciding on a "
        "person's diagnosis or treatment, screening, other kinds of pictures, or people unlike those below."
    )


def data(header: Header) -> str:
    training = header.training
    lines = [f"Source: {training.get('data', 'unknown')}."]
    lines += [training["about"]] if training.get("about") else []
    subjects = training.get("subjects")
    if subjects:
        codes = header.study.codes
        lines.append(
            table(
                ["Subjects", *codes, "all"],
                [
                    [name, *[str(counts.get(code, 0)) for code in codes], str(sum(counts.values()))]
                    for name, counts in subjects.items()
                ],
            )
        )
        lines += [flow(training["flow"])] if training.get("flow") else []
        lines += [people(training["people"])] if training.get("people") else []
        leaks = training.get("leaks_allowed")
        lines.append(
            f"**The parts share people or pictures: {leaks} pairs, allowed by --allow-leak. "
            "The scores below are too good to be believed.**"
            if leaks
            else "The parts share no person, no file and no picture; this was checked before training."
        )
    return "\n\n".join(lines)


def flow(steps: list[dict[str, Any]]) -> str:
    """From the files that were found to the parts: what is left at each step."""
    rows = [[step["step"], str(step["scans"]), str(step["people"])] for step in steps]
    return table(["Flow of cases", "scans", "people"], rows)


def people(told: dict[str, dict[str, dict[str, Any]]]) -> str:
    """What tables tell of the people and scanners of each part."""
    rows = [
        [name, PART_NAMES.get(part, part), in_brief(brief)]
        for name, parts in told.items()
        for part, brief in parts.items()
    ]
    return table(["People", "part", "as their table tells"], rows)


def in_brief(brief: dict[str, Any]) -> str:
    unknown = f"; unknown {brief['unknown']}" if brief.get("unknown") else ""
    if "mean" in brief:
        mean, spread = brief["mean"], brief["deviation"]
        return f"{mean:.1f} ± {spread:.1f} ({brief['low']:g} to {brief['high']:g}){unknown}"
    return ", ".join(f"{value} {count}" for value, count in brief["counts"].items()) + unknown


def method(header: Header) -> str:
    training, contract = header.training, header.contract
    arguments = ", ".join(f"{name} {given}" for name, given in header.arguments.items())
    settings = training.get("settings", {})
    grid = "×".join(map(str, contract.shape))
    spacing = f" of {'×'.join(f'{mm:g}' for mm in contract.spacing)} mm" if contract.spacing else ""
    lines = [
        f"Network: {header.network}{f' ({arguments})' if arguments else ''}.",
        f"Input: {contract.kind}, {grid}{spacing}; placed by “{contract.place}”, intensities by "
        f"“{contract.scale}” (contract {contract.hash()}).",
    ]
    lines += [f"Began with {training['started']}."] if training.get("started") else []
    if settings:
        term = f" + {settings['severity_weight']:g} × squared error of the expected severity"
        error = "squared error" if header.study.target else "cross-entropy"
        lines.append(
            f"Fitting: {error}{term if settings['severity_weight'] else ''}"
            f"{', rare classes weighted up' if settings['class_weights'] else ''}; {settings['optimiser']}, "
            f"learning rate {settings['lr']:g} ({settings['schedule']}), "
            f"{settings['batch'] * settings['accumulate']} cases a step, augmentation {settings['augment']}. "
            f"Of {training['epochs']} epochs the one with {best_in(settings.get('select', 'loss'))} is kept, "
            f"number {training['best_epoch']}."
        )
    return "\n\n".join(lines)


def best_in(select: str) -> str:
    """What the epoch that is kept has of all."""
    return f"the {'least' if select in ('loss', 'mae') else 'highest'} validation {select.replace('_', ' ')}"


def results(scores: dict[str, Any]) -> str:
    if not scores:
        return "Not measured: no subjects were held out to test on. Believe nothing of it until they are."
    counted = f"{scores['subjects']} subjects" + (f", {scores['cases']} scans" if "cases" in scores else "")
    text = [
        f"Measured on {scores['cohort']} ({counted}). In brackets: 95 % interval by resampling subjects, Wilson's "
        "for shares of 0 and 1.",
        scored(scores["metrics"]),
    ]
    points = scores.get("operating_points")
    if points:
        text.append(
            "Operating points: thresholds set on the validation subjects for a wanted sensitivity, and what they "
            "give here:\n\n"
            + table(
                ["Class", "Wanted", "Threshold", "Sensitivity", "Specificity"],
                [
                    [
                        point["code"],
                        f"{point['wanted']:g}",
                        f"{point['threshold']:.3f}",
                        value(point["sensitivity"]),
                        value(point["specificity"]),
                    ]
                    for point in points
                ],
            )
        )
    if scores.get("groups"):
        said = group_lines(scores["groups"])
        text.append("Groups of people:\n\n" + "\n".join(f"- {line}" for line in said))
    for name, reading in scores.get("readings", {}).items():
        text.append(f"Read as {name} ({reading['subjects']} subjects):\n\n{scored(reading['metrics'])}")
    return "\n\n".join(text)


def scored(metrics: dict[str, dict[str, Any]]) -> str:
    """Two tables: the scores of the whole, and those of each class."""
    whole = [[title, value(metrics[name])] for name, title in SCORES.items() if name in metrics]
    codes = [name.partition(".")[2] for name in metrics if name.startswith("sensitivity.")]
    names = [name for name in BY_CLASS if codes and f"{name}.{codes[0]}" in metrics]
    rows = [[code, *[value(metrics[f"{name}.{code}"]) for name in names]] for code in codes]
    of_classes = "\n\n" + table(["Class", *(BY_CLASS[name] for name in names)], rows) if codes else ""
    return table(["Score", "Value"], whole) + of_classes


def group_lines(found: dict[str, Any]) -> list[str]:
    """A line a group, with a warning where few people are in it."""
    said = []
    for name, groups in found.items():
        for kind, group in groups.items():
            first = next(
                (f"{key} {value(score)}" for key, score in group["metrics"].items() if score["value"] is not None),
                "nothing is defined",
            )
            few = f"; fewer than {FEW_IN_GROUP} people: do not read much into it" if group["few"] else ""
            said.append(f"{name} {kind}: {group['subjects']} subjects, {first}{few}")
    return said


def value(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return "not defined"
    spread = f" ({score['low']:.3f} to {score['high']:.3f})" if score.get("low") is not None else ""
    return f"{score['value']:.3f}{spread}"


def calibration(header: Header) -> str:
    fitted = header.calibration
    if not fitted:
        return "None: the probabilities are raw softmax values, and prediction sets hold every class."
    if header.study.target:
        return (
            f"Prediction intervals reach as far as answers lie off on {fitted['cohort']} ({fitted['subjects']} "
            f"validation subjects, {len(fitted['scores'])} scans), who also chose the epoch: the coverage "
            "promised may be missed a little; that under Results is measured."
        )
    text = [
        f"Temperature {fitted['temperature']:.3f}, fitted on {fitted['cohort']} ({fitted['subjects']} "
        f"validation subjects, {len(fitted['scores'])} scans). The prediction sets use the same subjects, who "
        "also chose the epoch: the coverage promised may be missed a little; that under Results is measured."
    ]
    if "ece" in fitted:
        text.append(
            f"Expected calibration error there: {fitted['ece']['before']:.3f} before, "
            f"{fitted['ece']['after']:.3f} after."
        )
    rows = header.scores.get("reliability")
    if rows:
        text.append(
            "Reliability on the scored subjects:\n\n"
            + table(
                ["Stated probability", "Scans", "Mean stated", "Share right"],
                [
                    [
                        f"{row['low']:.1f} to {row['high']:.1f}",
                        str(row["count"]),
                        f"{row['confidence']:.3f}",
                        f"{row['accuracy']:.3f}",
                    ]
                    for row in rows
                ],
            )
        )
    likeness = header.likeness
    if likeness:
        text.append(
            f"A scan whose features lie farther than {likeness['threshold']:.1f} from the training "
            "features (99 of 100 validation scans lie nearer) is called unlike them."
        )
    return "\n\n".join(text)


def limits(header: Header) -> str:
    scores = header.scores
    said = [
        "- The scores hold for people, scanners and labels like those under Data. Elsewhere they are unknown.",
        "- The labels are taken as true; where they are wrong, so are the scores.",
        "- It sees one picture and knows nothing of age, history or tests.",
        "- A heat map shows what moved the answer, not what is ill.",
    ]
    if header.anatomy:
        said.append(
            "- A class is called doubtful where the ventricles and hippocampi measured beside it speak against "
            f"it, by what {header.anatomy['cases']} brains of {header.anatomy['cohort']} measure at each severity."
        )
    if scores and scores["subjects"] < 100:
        said.append(
            f"- Few subjects were scored ({scores['subjects']}): the intervals above are wide, and rare "
            "faults cannot be seen."
        )
    return "\n".join(said)


def again(training: dict[str, Any]) -> str:
    if "command" not in training:
        return "Unknown."
    versions = ", ".join(f"{name} {version}" for name, version in training.get("versions", {}).items())
    before = training.get("begun_with") or {}
    begun = f"{before['command']}\n" if before.get("command") else ""
    ran = training.get("environment", {})
    on = f"; on {ran['processor']}, {ran['cores']} cores, {ran['device']}, {ran['system']}" if ran else ""
    spent = f" in {training['seconds'] / 60:.1f} min" if training.get("seconds") else ""
    source = f"; source {ran['source'][:16]}" if ran else ""
    return (
        f"```\n{begun}{training['command']}\n```\n\nSeed {training['seed']}; {versions}; commit "
        f"{training.get('commit') or 'unknown'}{source}; {training['date']}{spent}{on}."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
