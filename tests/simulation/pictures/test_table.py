"""The simulators by study: what every one of them draws."""

from itertools import islice

import numpy as np
import pytest

from simulation.pictures.table import SIMULATORS
from studies import STUDIES

FEW = 2  # pictures are enough


@pytest.fixture(scope="module", params=SIMULATORS)
def drawn(request):
    """Some pictures of each class of a study, and the study."""
    simulate, study = SIMULATORS[request.param], STUDIES[request.param]
    return study, {code: list(islice(simulate((3, 1), code), FEW)) for code in study.codes}


def test_pictures_are_grey_of_8_bits_with_something_in_them_and_their_class(drawn):
    _, pictures = drawn
    for code, shown in pictures.items():
        for picture, truth in shown:
            assert picture.dtype == np.uint8 and picture.ndim == 2 and min(picture.shape) >= 100
            assert picture.std() > 10
            assert truth["class"] == code


def test_every_picture_of_a_study_has_the_same_truths(drawn):
    _, pictures = drawn
    assert len({tuple(truth) for shown in pictures.values() for _, truth in shown}) == 1


def test_a_seed_draws_the_same_picture_and_another_seed_another(drawn):
    study, pictures = drawn
    code = study.codes[0]
    first, _ = pictures[code][0]
    again, _ = next(SIMULATORS[study.key]((3, 1), code))
    other, _ = next(SIMULATORS[study.key]((3, 2), code))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_only_picture_studies_have_a_simulator_here():
    assert {STUDIES[key].contract.kind for key in SIMULATORS} == {"image"}
