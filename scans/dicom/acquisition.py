"""How an image was acquired, told in words of our own tables: a header's text itself goes no further.

Names of sequences are what technicians type, so they are searched for the field's words and then dropped; the
codes and numbers that a scanner writes by itself decide where no such word is there.
"""

import math
import re
from typing import Any

from pydicom import Dataset

from scans.origin import Acquisition

MAKERS = {  # a part of what stands in headers → the name shown
    "SIEMENS": "Siemens",
    "PHILIPS": "Philips",
    "GE MEDICAL": "GE",
    "GE HEALTHCARE": "GE",
    "GENERAL ELECTRIC": "GE",
    "CANON": "Canon",
    "TOSHIBA": "Toshiba",
    "HITACHI": "Hitachi",
    "FUJIFILM": "Fujifilm",
    "UIH": "United Imaging",
    "UNITED IMAGING": "United Imaging",
    "NEUSOFT": "Neusoft",
    "ESAOTE": "Esaote",
    "BRUKER": "Bruker",
    "HYPERFINE": "Hyperfine",
    "FONAR": "Fonar",
    "SAMSUNG": "Samsung",
    "AGFA": "Agfa",
    "CARESTREAM": "Carestream",
    "KODAK": "Kodak",
}
NAMES = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
START, END = r"(?:^|[^A-Z0-9])", r"(?:$|[^A-Z0-9])"
WEIGHTINGS = {  # what an image shows → the words that say so; the first that is found holds
    "map": r"T[12][ _*-]*MAP",
    "diffusion": rf"DWI|DTI|DIFF|TRACEW|{START}ADC{END}",
    "fMRI": r"BOLD|FMRI",
    "perfusion": rf"PERF|{START}P?C?ASL{END}|{START}DSC{END}",
    "angiography": rf"{START}TOF|ANGIO|{START}MR[AV]{END}",
    "susceptibility": r"SWI|SWAN|SUSCEPT|T2 ?STAR|T2_?\*",
    "T1": r"T1|MP2?[ _-]?RAGE|SPGR|BRAVO|TFL3D|T1TFE",
    "FLAIR": r"FLAIR|DARK[ _-]?FL|TIRM",
    "T2": r"T2|CISS|FIESTA|HASTE",
    "PD": rf"{START}PD|PROTON",
}
CONTRASTS = {  # what a scanner's own code for the contrast says
    "T1": "T1",
    "T2": "T2",
    "T2_STAR": "susceptibility",
    "PROTON_DENSITY": "PD",
    "DIFFUSION": "diffusion",
    "FLUID_ATTENUATED": "FLAIR",
    "PERFUSION": "perfusion",
    "TOF": "angiography",
}
FAMILIES = ("MP2RAGE", "MPRAGE", "BRAVO", "SPGR", "TFE", "FLASH", "VIBE", "SPACE", "CUBE", "VISTA", "TSE", "FSE")
SCANNING = ("SE", "IR", "GR", "EP", "RM")  # the codes of ScanningSequence
NO_AGENT = re.compile(r"^\W*(?:NO|NON|NONE|NIL|N/?A|WITHOUT|0+|-+)?\W*$")
AGENT = re.compile(rf"{START}(?:GD|GADO\w*|GAD|POST\w*|CE|KM|CONTRAST\w*|CM){END}|[+]C{END}|{START}C[+]")
BEFORE = re.compile(rf"{START}(?:PRE|NO|NON|W/?O|WITHOUT|OHNE|SANS|NATIVE?){END}")
LOCALIZERS = re.compile(rf"LOCALI[SZ]ER|SCOUT|SURVEY|{START}LOC|TOPOGRAM|3[ _-]?P(?:LANE|L){END}")
HEADS = ("", "HEAD", "BRAIN", "SKULL", "NEURO", "HEADNECK", "HEADANDNECK", "CRANIUM")  # parts examined
NEITHER = re.compile(r"[^A-Z0-9]")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/-]{0,31}")


def acquisition(header: Dataset) -> Acquisition:
    """What one image says of how it was made."""
    maker = text(header, "Manufacturer").upper()
    return Acquisition(
        maker=next((shown for part, shown in MAKERS.items() if part in maker), None),
        model=model(header),
        tesla=tesla(header),
        sequence=sequence(header),
        weighting=weighting(header),
        thickness=number(header, "SliceThickness"),
        contrast=contrast(header),
    )


def text(header: Dataset, keyword: str) -> str:
    """An element as one line of text, its values separated by blanks; empty where there is none."""
    value: Any = header.get(keyword)
    if value is None:
        return ""
    parts = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return " ".join(str(part) for part in parts).strip()


def number(header: Dataset, keyword: str) -> float | None:
    """A positive number, of the image or, in a file of many frames, of what these share."""
    for told in (header, *shared(header)):
        try:
            value = float(text(told, keyword).split(" ")[0])
        except ValueError:
            continue
        if math.isfinite(value) and value > 0:
            return round(value, 3)
    return None


def shared(header: Dataset) -> list[Dataset]:
    """What all frames share of timing, echoes and measures."""
    groups = header.get("SharedFunctionalGroupsSequence") or []
    names = ("PixelMeasuresSequence", "MRTimingAndRelatedParametersSequence", "MREchoSequence")
    return [part[0] for group in groups[:1] for name in names if (part := group.get(name))]


def names(header: Dataset) -> str:
    """What the sequence is called, in capitals: to be searched, never to be shown."""
    return " ".join(text(header, keyword) for keyword in NAMES).upper()


def model(header: Dataset) -> str | None:
    """The scanner's model, unless it holds a word of who was scanned."""
    found = text(header, "ManufacturerModelName")
    person = f"{text(header, 'PatientName')} {text(header, 'PatientID')}".upper()
    words = [word for word in NEITHER.split(person) if len(word) > 2]
    if not MODEL.fullmatch(found) or any(word in found.upper() for word in words) or found.upper() == "NONE":
        return None
    return found


def tesla(header: Dataset) -> float | None:
    """The field's strength; some scanners write it in gauss."""
    value = number(header, "MagneticFieldStrength")
    return None if value is None or value > 1e6 else value / 10_000 if value > 100 else value


def sequence(header: Dataset) -> str | None:
    """Its family, dimensions and codes, as far as they are known words."""
    found = NEITHER.sub("", names(header))
    family = [next((name for name in FAMILIES if name in found), "")]
    kind = [part for part in (text(header, "MRAcquisitionType").upper(),) if part in ("2D", "3D")]
    codes = [part for part in text(header, "ScanningSequence").upper().split() if part in SCANNING]
    return " ".join(part for part in (*family, *kind, "/".join(codes)) if part) or None


def is_3d(header: Dataset) -> bool:
    found = NEITHER.sub("", names(header))
    return text(header, "MRAcquisitionType").upper() == "3D" or "3D" in found or "RAGE" in found


def weighting(header: Dataset) -> str | None:
    """What an MR image shows: by its name, by the scanner's code, or by its times; None where nothing tells."""
    if text(header, "Modality").upper() != "MR":
        return None
    found = names(header)
    named = next((kind for kind, words in WEIGHTINGS.items() if re.search(words, found)), None)
    return named or CONTRASTS.get(text(header, "AcquisitionContrast").upper()) or by_times(header)


def by_times(header: Dataset) -> str | None:
    """By repetition, echo and inversion times in ms, and only where these leave no doubt."""
    codes = text(header, "ScanningSequence").upper().split()
    echo = number(header, "EchoTime") or number(header, "EffectiveEchoTime")
    repetition, inversion = number(header, "RepetitionTime"), number(header, "InversionTime")
    if echo is None or repetition is None or not codes or "EP" in codes:
        return None
    if "GR" in codes:
        prepared = inversion is not None and 250 <= inversion <= 1400
        spoiled = repetition <= 60 and (number(header, "FlipAngle") or 0) >= 10
        return "T1" if echo <= 12 and (prepared or spoiled) else None
    if echo >= 60:
        return "FLAIR" if inversion is not None and inversion >= 1500 else "T2"
    if echo <= 30:
        return "T1" if repetition <= 900 else "PD" if repetition >= 1500 and not inversion else None
    return None


def contrast(header: Dataset) -> bool:
    """Whether a contrast agent is named, by its own element or in what the sequence is called."""
    agent = text(header, "ContrastBolusAgent").upper()
    if not NO_AGENT.match(agent) or header.get("ContrastBolusAgentSequence"):
        return True
    if number(header, "ContrastBolusVolume"):
        return True
    found = " ".join(text(header, keyword) for keyword in NAMES[:2]).upper().replace("_", " ")
    return bool(AGENT.search(found)) and not BEFORE.search(found)


def is_localizer(header: Dataset) -> bool:
    kinds = text(header, "ImageType").upper()
    return "LOCALIZER" in kinds or bool(LOCALIZERS.search(names(header)))


def is_derived(header: Dataset) -> bool:
    kinds = text(header, "ImageType").upper().split()
    return bool(kinds) and (kinds[0] == "DERIVED" or "SECONDARY" in kinds[:2])


def is_head(header: Dataset) -> bool:
    part = NEITHER.sub("", text(header, "BodyPartExamined").upper())
    return part in HEADS or part.startswith(("HEAD", "BRAIN"))
