"""The settings of a run: a study shaped as asked for."""

import pytest

import studies
from learning.loop import TrainError
from learning.settings import BRAIN, shaped


def test_a_smaller_grid_lies_about_the_middle_of_the_brain():
    study = studies.STUDIES["alzheimers"]
    settings = {"shape": [90, 120, 92], "arguments": {}, "network": "ClassificationModel3D"}
    small = shaped(study, settings).contract
    assert small.shape == (90, 120, 92) and settings["arguments"] == {"shape": [90, 120, 92]}
    for axis in range(3):  # the middle of the small grid lies where the large one has the middle of the brain
        large = (BRAIN[axis] - study.contract.anchor[axis]) * study.contract.shape[axis]
        assert (0.5 - small.anchor[axis]) * small.shape[axis] == pytest.approx(large)
    with pytest.raises(TrainError, match="give 3 numbers of at most 166 256 256"):
        shaped(study, {"shape": [90, 120], "arguments": {}, "network": study.network})
