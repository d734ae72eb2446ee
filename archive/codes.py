"""The coded concepts of the objects: DICOM's and SNOMED's where they say just what is meant, our own for the rest.

A class of a study has a code of its own: "looks like those called AD" is no diagnosis of Alzheimer's disease,
which SNOMED's code would claim.
"""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from diagnosis import gate
from studies import Study

OURS = "99SCANWISE"
LONGEST = 64  # characters of a code's meaning

UNITS = {
    "ml": Code("mL", "UCUM", "milliliter"),
    "%": Code("%", "UCUM", "percent"),
    "ratio": Code("{ratio}", "UCUM", "ratio"),
    "grade": Code("{score}", "UCUM", "score"),
    "1": Code("1", "UCUM", "no units"),
}
ANATOMY, SUBSTANCE = codes.SCT.AnatomicalStructure, codes.SCT.BodySubstance
# class of the segmenter → what it is (CID 7140), and of what category (CID 7150)
STRUCTURES = {
    "fluid": (codes.SCT.CerebrospinalFluid, SUBSTANCE),
    "grey": (codes.SCT.CerebralGrayMatter, ANATOMY),
    "white": (codes.SCT.CerebralWhiteMatter, ANATOMY),
    "lateral": (codes.SCT.LateralVentricle, ANATOMY),
    "inferior_horn": (codes.SCT.InferiorHornOfLateralVentricle, ANATOMY),
    "third": (codes.SCT.ThirdVentricle, ANATOMY),
    "fourth": (codes.SCT.FourthVentricle, ANATOMY),
    "hippocampus": (codes.SCT.Hippocampus, ANATOMY),
    "cerebellum": (codes.SCT.Cerebellum, ANATOMY),
    "stem": (codes.SCT.BrainStem, ANATOMY),
}
# how the name of a measure begins → where it was taken
SITES = {
    "intracranial": codes.SCT.CranialCavity,
    "brain": codes.SCT.Brain,
    "grey": codes.SCT.CerebralGrayMatter,
    "white": codes.SCT.CerebralWhiteMatter,
    "fluid": codes.SCT.CerebrospinalFluid,
    "ventricles": codes.SCT.BrainVentricle,
    "third": codes.SCT.ThirdVentricle,
    "fourth": codes.SCT.FourthVentricle,
    "lateral_ventricle": codes.SCT.LateralVentricle,
    "inferior_horn": codes.SCT.InferiorHornOfLateralVentricle,
    "hippocamp": codes.SCT.Hippocampus,
    "cerebellum": codes.SCT.Cerebellum,
    "stem": codes.SCT.BrainStem,
    "evans": codes.SCT.LateralVentricle,
    "occupancy": codes.SCT.Hippocampus,
    "mta": codes.SCT.TemporalLobe,
    "gca": codes.SCT.CerebralGrayMatter,
}
SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
VERDICTS = {
    gate.FIT: Code("fit", OURS, "Fit to be judged"),
    gate.DOUBTFUL: Code("doubtful", OURS, "Doubtful"),
    gate.UNFIT: Code("unfit", OURS, "Cannot be judged"),
}
PREDICTED = Code("class", OURS, "Class that the network gives")
IN_SET = Code("set", OURS, "In the prediction set")
FITNESS = Code("fitness", OURS, "Whether the scan can be judged")
SEVERITY = Code("severity", OURS, "Expected severity, 0 to 1")
ATTRIBUTION = Code("attribution", OURS, "What moved the network's answer, by voxel")
BRAIN_MRI = Code("24590-2", "LN", "MR Brain")


def class_code(study: Study, code: str) -> CodedConcept:
    name = next(label.name for label in study.labels if label.code == code)
    return CodedConcept(f"{study.key}:{code}", OURS, f"{name} ({code})"[:LONGEST])


def probability_code(study: Study, code: str) -> CodedConcept:
    return CodedConcept(f"{study.key}:{code}:p", OURS, f"Probability of {code}"[:LONGEST])


def measure_code(name: str, title: str) -> CodedConcept:
    return CodedConcept(f"measure:{name}", OURS, title[:LONGEST])


def site_of(name: str) -> tuple[Code | None, Code | None]:
    """Where a measure was taken, and on which side, as far as its name says."""
    site = next((site for start, site in SITES.items() if name.startswith(start)), None)
    return site, SIDES.get(name.rsplit("_", 1)[-1])


def scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(OURS, name="Scanwise", responsible_organization="Scanwise")
