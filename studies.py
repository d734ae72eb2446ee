"""The studies as data: what each one asks, of what pictures, with which network; no code beyond the records.

A study is everything that training, the page, the command line and a weights file must agree on. It is
copied into every weights file, so that a file trained today still reads its input the same way tomorrow.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

NOTICE = "Research use only. Not a medical device. Do not use it to diagnose or to treat."
STRUCTURES = "structures"  # the scale of a contract whose network sees what the segmenter outlined
NORMALISED = "normalised-structures"  # the same, every brain laid on the mean one


@dataclass(frozen=True)
class Label:
    code: str  # as in folder names, CSV files and JSON
    name: str  # in plain words
    severity: float | None = None  # 0 (least) to 1 (most), for studies whose classes have an order


@dataclass(frozen=True)
class Contract:
    """How a scan becomes the network's input; two scans prepared alike were prepared by equal contracts."""

    kind: str  # "volume" or "image"
    shape: tuple[int, ...]  # (x, y, z) of a volume, (rows, columns) of an image
    channels: int = 1
    spacing: tuple[float, ...] = ()  # mm a voxel, volumes only
    place: str = "head"  # volume: "head" by its foreground, "fill" the grid; image: "crop" the centre, "squeeze"
    scale: str = "foreground"  # its mean and deviation, STRUCTURES, NORMALISED, "stored", "unit", "imagenet"
    anchor: tuple[float, ...] = ()  # where the head's anchor comes to lie, as a fraction of the grid
    planes: int | None = None  # keep only the first planes along x (the published checkpoint: 160 of 166)

    @property
    def outlined(self) -> bool:
        """Whether the network sees what the segmenter outlined instead of the scan's brightness."""
        return self.scale in (STRUCTURES, NORMALISED)

    @property
    def normalised(self) -> bool:
        """Whether what was outlined is laid on the mean head."""
        return self.scale == NORMALISED

    def hash(self) -> str:
        """A short name for this very contract: caches and weights files are bound to it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Target:
    """The number that a study gives, in its own unit; the network's output is scaled by the training cases."""

    unit: str = ""
    mean: float = 0.0  # of the training cases
    deviation: float = 1.0

    def value(self, output: Any) -> Any:
        return output * self.deviation + self.mean


@dataclass(frozen=True)
class Study:
    key: str
    title: str
    question: str  # one line for the page
    labels: tuple[Label, ...]  # in the order of the network's outputs
    contract: Contract
    network: str  # a name in model.NETWORKS; others may be chosen from `networks`
    networks: tuple[str, ...]
    use: str  # what it is meant for, in one or two sentences
    arguments: dict[str, Any] = field(default_factory=dict)  # of the network
    training: dict[str, Any] = field(default_factory=dict)  # defaults of train.py
    target: Target | None = None  # of a study of a number: its one label is that number's name
    aliases: dict[str, str] = field(default_factory=dict)  # other label of the data → code, or "" to leave out

    @property
    def codes(self) -> list[str]:
        return [label.code for label in self.labels]

    def answer(self, label: str) -> float:
        """What the network is to give for a label: the place of its class, or the number itself."""
        return float(label) if self.target else self.codes.index(label)

    @property
    def ordered(self) -> bool:
        return self.target is None and all(label.severity is not None for label in self.labels)

    @property
    def by_severity(self) -> list[str]:
        """The codes from least to most severe, or in the network's order where there is no severity."""
        return [label.code for label in sorted(self.labels, key=lambda label: label.severity or 0)]


def to_json(value: Any, **options: Any) -> str:
    """JSON as everybody reads it: NaN and infinity, for which it has no words, are a ValueError."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)


def from_json(text: str | bytes) -> Any:
    """What `to_json` wrote; a ValueError for no JSON, NaN and infinity, and what is nested past reading."""

    def finite(word: str) -> float:
        value = float(word)
        if not math.isfinite(value):
            raise ValueError(f"{word[:40]} is no finite number")
        return value

    try:
        return json.loads(text, parse_float=finite, parse_constant=finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_record(study: Study) -> dict[str, Any]:
    """The study as JSON-ready data, for a weights file or the API."""
    record = json.loads(json.dumps(asdict(study)))
    for name in ("target", "aliases"):  # so that files without them open in the versions before
        if not record[name]:
            del record[name]
    return record


def from_record(record: dict[str, Any]) -> Study:
    """The study that `to_record` wrote; unknown or missing fields raise TypeError or KeyError."""
    contract: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["contract"].items()}
    fields: dict[str, Any] = record | {
        "labels": tuple(Label(**label) for label in record["labels"]),
        "contract": Contract(**contract),
        "networks": tuple(record["networks"]),
        "target": Target(**record["target"]) if record.get("target") else None,
    }
    return Study(**fields)


HEAD = Contract(
    kind="volume",
    shape=(166, 256, 256),
    spacing=(1.2, 1.0, 1.0),
    place="head",
    scale="foreground",
    anchor=(0.5, 0.5, 0.55),
)


def picture(shape: tuple[int, int], place: str, scale: str) -> Contract:
    """The contract of a picture study: three channels, grey pictures repeated in each."""
    return Contract(kind="image", shape=shape, channels=3, place=place, scale=scale)


# The published checkpoint's own way: the volume as stored, stretched to the grid, its first 160 planes.
PUBLISHED = Contract(kind="volume", shape=(166, 256, 256), place="fill", scale="stored", planes=160)

STUDIES: dict[str, Study] = {
    study.key: study
    for study in [
        Study(
            key="alzheimers",
            title="Alzheimer's stages from a T1 brain MRI",
            question="Which stage, from cognitively normal to Alzheimer's disease, does this T1 scan look like?",
            labels=(
                Label("AD", "Alzheimer's disease", 1.0),
                Label("CN", "cognitively normal", 0.0),
                Label("MCI", "mild cognitive impairment", 0.5),
                Label("EMCI", "early mild cognitive impairment", 0.25),
                Label("LMCI", "late mild cognitive impairment", 0.75),
            ),
            contract=HEAD,
            network="ClassificationModel3D",
            networks=("ClassificationModel3D",),
            use=(
                "Research on T1-weighted MRI of adult heads. It reads atrophy from one scan; it knows nothing of "
                "age, history or tests, and must not be used to diagnose."
            ),
            training={
                "epochs": 12,
                "lr": 3e-4,
                "batch": 4,
                "optimiser": "adamw",
                "schedule": "one-cycle",
                "patience": 0,
                "severity_weight": 4.0,
                "clip": 1.0,
            },
        ),
        Study(
            key="chest-nodule",
            title="Lung nodules on a chest X-ray",
            question="Does this frontal chest X-ray look as if there were a nodule?",
            labels=(Label("normal", "no nodule"), Label("nodule", "nodule")),
            contract=picture((224, 224), "crop", "imagenet"),
            network="VGGFeatures",
            networks=("VGGFeatures", "SmallCNN"),
            use="Research on frontal chest X-rays of adults. It points at nothing and measures nothing.",
            training={
                "epochs": 20,
                "lr": 0.01,
                "batch": 20,
                "optimiser": "sgd",
                "schedule": "constant",
                "decay": 0.0,
                "augment": "none",
                "freeze": True,
            },
        ),
        Study(
            key="dementia-slices",
            title="Degrees of dementia from an axial MRI slice",
            question="Which degree of dementia does this axial T1 slice look like?",
            labels=(
                Label("MildDemented", "mild dementia", 2 / 3),
                Label("ModerateDemented", "moderate dementia", 1.0),
                Label("NonDemented", "no dementia", 0.0),
                Label("VeryMildDemented", "very mild dementia", 1 / 3),
            ),
            contract=picture((100, 100), "squeeze", "unit"),
            network="SliceCNN",
            networks=("SliceCNN", "resnet18", "SmallCNN"),
            use="Research on single axial T1 slices. One slice shows little of a brain: a weak hint.",
            training={
                "epochs": 50,
                "lr": 1e-3,
                "batch": 32,
                "optimiser": "adam",
                "schedule": "constant",
                "decay": 0.0,
                "patience": 5,
                "augment": "full",
            },
        ),
        Study(
            key="brain-tumour",
            title="Brain tumours on an MRI slice",
            question="Does this MRI slice look as if there were a tumour?",
            labels=(Label("no", "no tumour"), Label("yes", "tumour")),
            contract=picture((224, 224), "squeeze", "imagenet"),
            network="resnet18",
            networks=("resnet18", "vgg11_bn", "densenet121", "SmallCNN"),
            use="Research on single MRI slices of the head. It names no kind of tumour and no place.",
            training={
                "epochs": 50,
                "lr": 1e-3,
                "batch": 25,
                "optimiser": "adam",
                "schedule": "constant",
                "decay": 0.0,
                "patience": 5,
                "augment": "full",
            },
        ),
        Study(
            key="covid-ct",
            title="COVID-19 pneumonia on a lung CT slice",
            question="Does this lung CT slice look like COVID-19 pneumonia?",
            labels=(Label("no_nCoV", "no COVID-19 pneumonia"), Label("nCoV", "COVID-19 pneumonia")),
            contract=picture((448, 448), "squeeze", "imagenet"),
            network="AttentionPyramid",
            networks=("AttentionPyramid", "resnet18", "SmallCNN"),
            use="Research on axial lung CT slices in the lung window. It knows one slice and no other pneumonia.",
            training={
                "epochs": 30,
                "lr": 0.002,
                "batch": 4,
                "optimiser": "sgd",
                "schedule": "constant",
                "momentum": 0.9,
                "decay": 1e-4,
                "augment": "full",
                "subject_regex": r"((?:no_)?nCoV-\d+)",
            },
        ),
    ]
}
