"""A reporting checklist with what the weights file knows filled in: TRIPOD+AI (2024) and CLAIM (2024).

The words are ours and short; whoever reports reads the two statements themselves. What no file can know is left
open with the words “to be written”.
"""

from typing import Any

from networks.header import Header
from scoring.card import in_brief, table, value

OPEN = "to be written"
# item of TRIPOD+AI, of CLAIM, what is to be reported
ITEMS = (
    ("1", "1", "Title: a study of a prediction model, of whom, of what"),
    ("2", "2", "Abstract"),
    ("3", "3", "Background: the question, and care as it is today"),
    ("4", "4, 6", "Objectives: development, evaluation, or both"),
    ("5", "5, 7", "Data: sources, dates, prospective or not"),
    ("6", "8", "Participants: setting, who was in and who was out"),
    ("7", "9–11, 13", "Preparation of the data: acquisition, processing, de-identification"),
    ("8", "14–18", "Outcome: how it was known, by whom, how well they agree"),
    ("9", "9", "Predictors: what the model is given"),
    ("10", "21", "Sample size, and why"),
    ("11", "12", "Missing data: how they were treated"),
    ("12a", "19, 20", "Partitions: how cases were divided, and at which level"),
    ("12b–c", "22–25", "Model: architecture, beginning, training, software"),
    ("12d", "26, 27", "How the final model was chosen"),
    ("12e", "28, 29", "Measures of performance, and their uncertainty"),
    ("12f", "30, 31", "Robustness, explanations"),
    ("13", "", "Class imbalance"),
    ("14", "", "Fairness: performance in groups"),
    ("15", "22", "Output of the model"),
    ("16", "32, 33", "Training and evaluation: how the two differ"),
    ("17", "11", "Ethics: approval, consent"),
    ("18", "34, 42–44", "Open science: funding, protocol, registration, data, code"),
    ("19", "", "Involvement of patients and public"),
    ("20", "35, 36", "Participants: flow, characteristics"),
    ("21–22", "35", "Model: cases of each part, full specification"),
    ("23", "37, 38", "Performance with intervals"),
    ("24", "", "Updating of the model"),
    ("25–26", "40, 41", "Interpretation, limitations"),
    ("27", "39", "Use: input of poor quality, failures, what comes next"),
)


def checklist(header: Header) -> str:
    """The checklist as Markdown."""
    known = answers(header)
    rows = [[tripod, claim, asked, known.get(tripod, OPEN)] for tripod, claim, asked in ITEMS]
    return (
        f"# Reporting checklist: {header.title}\n\n"
        "Filled in from the weights file, as far as it knows; TRIPOD+AI and CLAIM ask for the rest.\n\n"
        + table(["TRIPOD+AI", "CLAIM", "What is asked", "What is known"], rows)
        + "\n"
    )


def answers(header: Header) -> dict[str, str]:
    """What the header knows, by TRIPOD+AI's items."""
    training, study, contract = header.training, header.study, header.contract
    settings: dict[str, Any] = training.get("settings", {})
    kind = "a number, with an interval" if study.target else "probabilities of each class"
    found = {
        "1": header.title,
        "4": study.question,
        "5": training.get("data", ""),
        "9": f"one {contract.kind}, {'×'.join(map(str, contract.shape))}; no age, history or test",
        "7": f"contract {contract.hash()}: placed by “{contract.place}”, intensities by “{contract.scale}”",
        "8": f"labels of the data: {', '.join(study.codes)}; how they were made is {OPEN}",
        "15": f"{kind}: {', '.join(study.codes)}",
        "27": "a gate refuses scans that are not fit to be judged; see the documents",
    }
    if training.get("flow"):
        found["6"] = "; ".join(f"{step['step']} {step['scans']}" for step in training["flow"])
        found["20"] = found["6"] + people(training.get("people", {}))
    if training.get("subjects"):
        found["21–22"] = "; ".join(
            f"{part}: " + ", ".join(f"{code} {count}" for code, count in counts.items())
            for part, counts in training["subjects"].items()
        )
        total = sum(sum(counts.values()) for counts in training["subjects"].values())
        found["10"] = f"{total} subjects; why so many is {OPEN}"
        found["12a"] = "by subject, each class in proportion, seeded; leaks between parts are refused" + (
            f", but {training['leaks_allowed']} were allowed" if training.get("leaks_allowed") else ""
        )
    if settings:
        versions = ", ".join(f"{name} {version}" for name, version in training.get("versions", {}).items())
        found["12b–c"] = f"{header.network}; {settings['optimiser']}, {training['epochs']} epochs; {versions}"
        found["12d"] = f"the epoch best in validation {settings.get('select', 'loss')}, on subjects of their own"
        found["13"] = "rare classes weighted up" if settings["class_weights"] else "classes as they came"
    if header.scores:
        found["12e"] = "see 23; 95 % intervals by resampling subjects, Wilson's for shares of 0 and 1"
        found["16"] = f"measured on {header.scores['cohort']}; other sites and scanners are {OPEN}"
        found["23"] = "; ".join(
            f"{name} {value(score)}"
            for name, score in header.metrics.items()
            if "." not in name and score["value"] is not None
        )
        found["12f"] = "heat maps by relevance, Grad-CAM and occlusion; robustness is " + OPEN
    if header.scores.get("groups"):
        found["14"] = "; ".join(
            f"{name} {kind}: {group['subjects']} subjects"
            for name, groups in header.scores["groups"].items()
            for kind, group in groups.items()
        )
    return {item: " ".join(words.replace("|", "/").split()) for item, words in found.items() if words}


def people(told: dict[str, Any]) -> str:
    return "".join(
        f"; {name} in {part}: {in_brief(brief)}" for name, parts in told.items() for part, brief in parts.items()
    )
