"""The segmenter: cubes and their voxels, an answer for every voxel."""

from itertools import product

import pytest
import torch

from networks.segmenter import CLASSES, Segmenter, from_cubes, to_cubes


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.bfloat16, torch.float32, torch.int64], ids=str)
def test_cubes_hold_the_eight_voxels_of_a_corner_and_go_back(kind):
    volume = torch.arange(4 * 6 * 8).remainder(251).view(1, 4, 6, 8).to(kind)
    cubes = to_cubes(volume)
    assert cubes.shape == (1, 2, 3, 4, 8)
    corner = [volume[0, 2 + i, 4 + j, 6 + k] for i, j, k in product((0, 1), repeat=3)]
    assert cubes[0, 1, 2, 3].tolist() == corner
    assert torch.equal(from_cubes(cubes), volume)


def test_the_segmenter_answers_every_voxel_whatever_the_brightness_and_stays_small():
    torch.manual_seed(0)
    network = Segmenter().eval()
    assert sum(each.numel() for each in network.parameters()) <= 1_000_000
    volume = torch.rand(1, 32, 48, 32)
    with torch.inference_mode():
        scores, brighter = network(volume), network(3 * volume)
    assert scores.shape == (1, len(CLASSES), 32, 48, 32)
    # bfloat16 keeps 8 bits, and is what processors that have it use
    assert (brighter - scores).abs().mean() < 0.03 * scores.std()
