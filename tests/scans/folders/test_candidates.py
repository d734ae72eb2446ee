"""Which of several is read: by rule, with what speaks against the others, or not at all."""

import pytest

from scans.folders import candidates
from scans.origin import Acquisition, Series
from scans.scan import ScanError


def one(number, images, *why_not, weighting="T1", in_3d=False, modality="MR"):
    return Series(str(number), images, 4, 6, modality, Acquisition(weighting=weighting), why_not, in_3d)


def chosen(*series, asked=None):
    marked = candidates.choose(series, "a.zip", asked)
    return next(each.key for each in marked if each.chosen), {each.key: each.why_not for each in marked}


T1, T2 = one(5, 176), one(3, 40, "not-t1", weighting="T2")
NOTHING = "nothing-says-t1"


def test_the_t1_is_taken_and_the_others_are_told_why_not():
    others = [
        one(number, 60, code) for number, code in enumerate(("localizer", "contrast", "derived", "modality"), 10)
    ]
    number, reasons = chosen(T2, *others, one(4, 12), one(6, 100), T1)
    assert number == "5"
    assert reasons == {
        "3": ("not-t1",),
        "10": ("localizer",),
        "11": ("contrast",),
        "12": ("derived",),
        "13": ("modality",),
        "4": ("few-planes",),
        "6": ("second",),
        "5": (),
    }


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (one(2, 160, in_3d=True), one(3, 200)),
        (one(2, 200), one(3, 160)),
        (one(2, 20), one(3, 160, "derived")),
        (one(2, 20, "derived"), one(3, 160, "contrast", in_3d=True)),
        (one(2, 160, "contrast"), one(3, 200, NOTHING, weighting=None)),
    ],
)
def test_which_of_two_is_better(better, worse):
    assert chosen(better, worse)[0] == chosen(worse, better)[0] == better.key


def test_of_equals_the_first():
    assert chosen(one(2, 160), one(3, 160))[0] == "2"


def test_the_only_one_that_could_be():
    assert chosen(one(6, 100, NOTHING, weighting=None), T2)[0] == "6"


def test_the_only_one_is_read_whatever_it_is():
    assert chosen(one(2, 3, "localizer")) == ("2", {"2": ("localizer", "few-planes")})


def test_without_evidence_none_is_taken():
    unsure = [one(number, count, NOTHING, weighting=None) for number, count in ((3, 50), (11, 40), (12, 20))]
    with pytest.raises(ScanError) as refused:
        chosen(*unsure)
    assert refused.value.code == "several-series"
    assert "3 series in it (3: 50 images 4×6 MR; 11: 40 images 4×6 MR; 12: 20 images 4×6 MR)" in str(refused.value)


def test_any_can_be_asked_for():
    assert chosen(T1, T2, asked="3") == ("3", {"5": ("second",), "3": ("not-t1",)})
    with pytest.raises(ScanError, match=r"no series 4 in it \(5: 176 images 4×6 MR T1; 3: 40"):
        chosen(T1, T2, asked="4")


def test_a_long_list_ends():
    with pytest.raises(ScanError, match="and 10 more"):
        chosen(*[one(number, 50, NOTHING, weighting=None) for number in range(30)])


def of(person, study, key, *why_not, weighting="T1", images=100):
    acquisition = Acquisition(weighting=weighting)
    return Series(str(key), images, 4, 6, "MR", acquisition, why_not, study=study, person=person)


UNSURE = {"weighting": None}


@pytest.mark.parametrize(
    ("series", "keys"),
    [
        ([of(1, 1, 3), of(2, 2, 4)], ["3", "4"]),
        ([of(1, 1, 3), of(1, 2, 4)], ["3", "4"]),  # one person, twice
        ([of(1, 1, 3), of(1, 1, 4, "contrast"), of(2, 2, 5, "not-t1"), of(2, 2, 6)], ["3", "6"]),
        ([of(1, 1, 3), of(2, 2, 4, "modality")], []),  # a CT beside it has no answer of its own
        ([of(1, 1, 3), of(2, 2, 4, images=12)], []),
        ([of(1, 1, 3), of(1, 1, 4)], []),  # one study
        ([of(1, 1, 3, NOTHING, **UNSURE), of(2, 2, 4, NOTHING, **UNSURE)], ["3", "4"]),  # all that each has
        ([of(1, 1, 3, NOTHING, **UNSURE), of(1, 2, 4, NOTHING, **UNSURE)], []),  # without evidence none is taken
        ([of(1, 1, 3, NOTHING, **UNSURE), of(1, 2, 4)], []),
        ([of(1, 1, 3), of(2, 2, 4), of(3, 3, 5, NOTHING), of(3, 3, 6, NOTHING)], ["3", "4"]),
    ],
)
def test_of_several_people_each_has_an_answer(series, keys):
    assert candidates.each_study(series) == keys
    assert candidates.each_study(candidates.judged(series)) == keys  # also of a list that was chosen from
