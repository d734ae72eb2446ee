"""What headers say of the acquisition: in our own words, by name, by code and by times; never their text."""

import pydicom
import pytest

from scans.dicom import acquisition as told


def header(**elements):
    data = pydicom.Dataset()
    data.Modality = "MR"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def test_a_scanner_in_our_words():
    made = told.acquisition(
        header(
            Manufacturer="SIEMENS Healthineers",
            ManufacturerModelName="MAGNETOM Prisma_fit",
            MagneticFieldStrength=2.8936,
            SeriesDescription="t1_mprage_sag Plantedname",
            ScanningSequence=["GR", "IR"],
            MRAcquisitionType="3D",
            SliceThickness=0.9,
        )
    )
    assert (made.maker, made.model, made.tesla) == ("Siemens", "MAGNETOM Prisma_fit", 2.894)
    assert (made.sequence, made.weighting, made.thickness) == ("MPRAGE 3D GR/IR", "T1", 0.9)
    assert not made.contrast and "Planted" not in repr(made)


@pytest.mark.parametrize(
    ("maker", "shown"), [("GE MEDICAL SYSTEMS", "GE"), ("Philips Medical Systems", "Philips"), ("Planted", None)]
)
def test_makers(maker, shown):
    assert told.acquisition(header(Manufacturer=maker)).maker == shown


def test_a_model_that_names_the_person_is_left_out():
    assert told.model(header(ManufacturerModelName="Signa of Plantedname", PatientName="PLANTEDNAME^A")) is None
    assert told.model(header(ManufacturerModelName="Unit 748392", PatientID="748392")) is None
    assert told.model(header(ManufacturerModelName="Signa\nHDxt")) is None


def test_gauss_are_tesla():
    assert told.tesla(header(MagneticFieldStrength=15000)) == 1.5


@pytest.mark.parametrize(
    ("name", "weighting"),
    [
        ("t1_mprage_sag_p2", "T1"),
        ("Sag 3D BRAVO", "T1"),
        ("AX T1 FLAIR", "T1"),
        ("WIP 3D_T1TFE", "T1"),
        ("t2_space_dark-fluid", "FLAIR"),
        ("AX T2 FLAIR", "FLAIR"),
        ("t2_tse_tra", "T2"),
        ("ep2d_diff_3scan", "diffusion"),
        ("Ax T2* GRE", "susceptibility"),
        ("SWI_Images", "susceptibility"),
        ("TOF_3D_multi-slab", "angiography"),
        ("pd_tse", "PD"),
        ("T1_MAP", "map"),
        ("axial", None),
    ],
)
def test_names_tell_the_weighting(name, weighting):
    assert told.weighting(header(SeriesDescription=name)) == weighting


@pytest.mark.parametrize(
    ("codes", "times", "weighting"),
    [  # repetition, echo, inversion in ms, flip angle
        (["GR", "IR"], (2300, 3, 900, 9), "T1"),
        (["GR"], (30, 5, None, 30), "T1"),
        (["GR"], (700, 20, None, 20), None),
        (["SE"], (500, 12, None, 90), "T1"),
        (["SE"], (3000, 100, None, 90), "T2"),
        (["SE"], (3000, 15, None, 90), "PD"),
        (["SE", "IR"], (9000, 120, 2500, 90), "FLAIR"),
        (["EP", "SE"], (5000, 80, None, 90), None),
        ([], (2000, 3, None, 9), None),
    ],
)
def test_times_tell_the_weighting_where_no_name_does(codes, times, weighting):
    given = dict(zip(("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle"), times, strict=True))
    assert told.weighting(header(ScanningSequence=codes, **given)) == weighting


def test_the_scanners_own_code():
    assert told.weighting(header(AcquisitionContrast="FLUID_ATTENUATED")) == "FLAIR"
    assert told.weighting(header(Modality="CT", SeriesDescription="T1")) is None


@pytest.mark.parametrize("agent", ["Gadovist", "DOTAREM 0.5 mmol/ml", "YES"])
def test_an_agent_that_is_named(agent):
    assert told.contrast(header(ContrastBolusAgent=agent))


@pytest.mark.parametrize("agent", ["", "NONE", "no", "N/A", "0", "without"])
def test_an_agent_that_is_none(agent):
    assert not told.contrast(header(ContrastBolusAgent=agent))


@pytest.mark.parametrize(
    ("name", "enhanced"),
    [
        ("T1 SAG GD", True),
        ("t1_mprage_post", True),
        ("AX T1 +C", True),
        ("T1 C+ FS", True),
        ("Ax T1 POST CONTRAST", True),
        ("T1 KM", True),
        ("T1 pre contrast", False),
        ("T1 without contrast", False),
        ("t1_mprage_ce", True),
        ("T1 CENTRAL", False),
        ("MPRAGE", False),
    ],
)
def test_names_that_tell_of_an_agent(name, enhanced):
    assert told.contrast(header(SeriesDescription=name)) is enhanced


def test_localizers_derived_images_and_other_parts():
    assert told.is_localizer(header(SeriesDescription="3-plane loc"))
    assert told.is_localizer(header(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert not told.is_localizer(header(SeriesDescription="t1 velocity"))
    assert told.is_derived(header(ImageType=["DERIVED", "SECONDARY", "MPR"]))
    assert not told.is_derived(header(ImageType=["ORIGINAL", "PRIMARY", "M", "ND"]))
    assert told.is_head(header(BodyPartExamined="HEAD AND NECK")) and told.is_head(header())
    assert not told.is_head(header(BodyPartExamined="LSPINE"))
