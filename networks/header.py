"""`Header`: what a weights file says of itself, read from and written to the one JSON document that it carries.

It knows nothing of files and tensors; those are `model`'s. A part that a file lacks is empty here, and a key that
this version does not know is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from networks.base import WeightsError
from networks.header_checks import HeaderError, check
from studies import Contract, Study, from_record, to_record

FORMAT = 1  # of the document


@dataclass(frozen=True, eq=False)
class Header:
    """The study with its contract, the network, and what training and scoring left behind."""

    study: Study
    network: str  # a name in model.NETWORKS
    arguments: dict[str, Any] = field(default_factory=dict)  # of the network
    title: str = ""  # the honest one-line name; the study's own where the file gives none
    training: dict[str, Any] = field(default_factory=dict)  # data, subjects, settings, versions
    scores: dict[str, Any] = field(default_factory=dict)  # on held-out subjects
    calibration: dict[str, Any] = field(default_factory=dict)
    likeness: dict[str, Any] = field(default_factory=dict)  # how far from the training scans is still usual
    anatomy: dict[str, Any] = field(default_factory=dict)  # what a cohort's brains measure, by severity
    example: dict[str, Any] = field(default_factory=dict)  # a file and its probabilities
    card: str = ""  # Markdown
    others: dict[str, Any] = field(default_factory=dict)  # keys that this version does not know

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.study.title)

    @property
    def contract(self) -> Contract:
        return self.study.contract

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 where nothing was fitted."""
        return self.calibration.get("temperature", 1.0)

    @property
    def scaled(self) -> bool:
        """Whether a temperature was fitted."""
        return "temperature" in self.calibration

    @property
    def conformal_scores(self) -> list[float]:
        """1 − p of the truth for each validation case; none where nothing was fitted."""
        return self.calibration.get("scores", [])

    @property
    def calibrated(self) -> bool:
        """Whether the prediction sets promise a coverage."""
        return bool(self.conformal_scores)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The scores by name, each with `value`, `low` and `high`."""
        return self.scores.get("metrics", {})

    @property
    def learned_from(self) -> dict[str, set[str]]:
        """The hashes of the subjects that it, or what it began with, was trained or calibrated on, by their salt.

        Files of old have no salt: theirs is the empty one.
        """
        hashes = self.training.get("subject_hashes", {})
        own = {digest for part in ("train", "val") for digest in hashes.get(part, [])}
        earlier = self.training.get("earlier_hashes", {})
        found = {salt: set(digests) for salt, digests in earlier.items()}
        salt = self.training.get("subject_salt", "")
        return found | {salt: found.get(salt, set()) | own} if own else found

    def record(self) -> dict[str, Any]:
        """The JSON document."""
        study = to_record(self.study)
        parts = {name: getattr(self, name) for name in PARTS}
        return {
            "format": FORMAT,
            "title": self.title,
            "study": study,
            "network": {"name": self.network, "arguments": self.arguments},
            "contract": study["contract"],
            "contract_hash": self.contract.hash(),
            **{name: part for name, part in parts.items() if part},
            **self.others,
        }


PARTS = ("training", "scores", "calibration", "likeness", "anatomy", "example", "card")
KEYS = {"format", "title", "study", "network", "contract", "contract_hash", *PARTS}  # of the document


def from_document(record: Mapping[str, Any], name: str) -> Header:
    """The header that `record` wrote; `name` is the file's, for what is refused."""
    try:
        study = from_record({**record["study"], "contract": record["contract"]})
        stated, network = record["contract_hash"], record["network"]["name"]
        own = from_record(dict(record["study"])).contract
        check(dict(record))
    except HeaderError as error:
        raise WeightsError(f"{name}: {error}; train the file again") from error
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{name}: its header lacks or misspells {error}; train the file again") from error
    if study.contract.hash() != stated or own != study.contract:
        raise WeightsError(
            f"{name}: its input contract hashes to {study.contract.hash()}, its header says {stated}; the two "
            "must agree, so use the file as train.py wrote it"
        )
    return Header(
        study,
        network,
        dict(record["network"].get("arguments", {})),
        record.get("title") or "",
        **{part: record[part] for part in PARTS if record.get(part)},
        others={key: value for key, value in record.items() if key not in KEYS},
    )
