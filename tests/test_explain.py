"""Maps: that they lie where they should, agree with an independent library, and say when not to believe them."""

import copy

import nibabel
import numpy as np
import pytest
import torch
from captum.attr import LRP, LayerGradCam, Occlusion
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from torch import nn

from diagnosis import explain, grad_cam, network_view, occlusion, relevance
from diagnosis.explain import Map
from diagnosis.network_view import NetworkView
from diagnosis.regions import OUTSIDE, regions, warnings
from model import NETWORKS, ClassificationModel3D, Weights
from networks.base import Network
from scans.prepare import Prepared, prepare, restore
from scans.read import read
from studies import HEAD, Contract, Label, Study

SMALL = Contract(
    kind="volume",
    shape=(64, 76, 76),
    spacing=(3.0, 3.0, 3.0),
    place="head",
    scale="foreground",
    anchor=(0.5, 0.5, 0.55),
)


def weights_of(network: nn.Module, contract: Contract = SMALL, codes=("yes", "no")) -> Weights:
    study = Study(
        "made",
        "Made up",
        "Is it there?",
        tuple(Label(code, code) for code in codes),
        contract,
        "Finder",
        ("Finder",),
        "A test.",
    )
    network = network.eval().requires_grad_(False)
    return Weights("made.safetensors", "0" * 64, {}, study, network, torch.device("cpu"))


def prepared_of(tensor: torch.Tensor, spacing=(1.0, 1.0, 1.0)) -> Prepared:
    return Prepared(
        tensor, np.eye(4), torch.ones(tensor.shape[1:], dtype=torch.bool), np.diag([*spacing, 1.0]), [], {}
    )


class Finder(Network):
    """Made by hand: "yes" grows with every place whose 3×3×3 mean is bright, two pools deep."""

    cam_layer = "second_pool"

    def __init__(self, bright: float = 3.0):
        super().__init__()
        self.first, self.first_pool = nn.Conv3d(1, 1, 3), nn.MaxPool3d(2)
        self.second, self.second_pool = nn.Conv3d(1, 1, 3), nn.MaxPool3d(2)
        cells = [((side - 2) // 2 - 2) // 2 for side in SMALL.shape]
        self.dense = nn.Linear(cells[0] * cells[1] * cells[2], 2, bias=False)
        with torch.no_grad():
            for layer, bias in ((self.first, -bright), (self.second, 0.0)):
                layer.weight.fill_(1 / 27)
                layer.bias.fill_(bias)
            self.dense.weight.zero_()
            self.dense.weight[0] = 1.0

    def base(self, x):
        x = self.first_pool(self.first(x).relu())
        return self.second_pool(self.second(x).relu()).flatten(1)

    def head(self, features):
        return self.dense(features)


def head_with_cube(codes: str, spacing: tuple[float, ...], centre: tuple[float, ...]):
    """A head of four layers with a bright cube of 15 mm, stored in some axis order; the cube's middle in mm."""
    size = np.round(np.array([190, 230, 215]) / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -size * spacing / 2 + (3, -17, 40)
    mm = [affine[a, 3] + spacing[a] * np.arange(size[a]) for a in range(3)]
    x, y, z = np.meshgrid(*mm, indexing="ij", sparse=True)
    middle = affine[:3, 3] + size * spacing / 2
    radius = ((x - middle[0]) / 78) ** 2 + ((y - middle[1]) / 97) ** 2 + ((z - middle[2]) / 88) ** 2
    texture = 20 * np.sin(x / 9) * np.cos(y / 7) + 15 * np.sin(z / 5)
    layers_ = [(1.0, 310), (0.86, 60), (0.78, 240), (0.6, 320)]  # scalp, skull, grey and white matter
    target = middle + centre
    cube = (np.abs(x - target[0]) <= 7.5) & (np.abs(y - target[1]) <= 7.5) & (np.abs(z - target[2]) <= 7.5)
    voxels = np.zeros(cube.shape)
    for reach, value in layers_:
        voxels = np.where(radius < reach, value + texture, voxels)
    voxels[cube] = 800
    image = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    inside = np.argwhere(cube).mean(0)  # where the cube's voxels really ended up
    return image.as_reoriented(turn), affine[:3, :3] @ inside + affine[:3, 3]


CASES = [
    ("RAS", (1.5, 1.5, 1.5), (30, 40, 20)),
    ("LPS", (2.0, 1.0, 2.0), (-35, -45, 25)),
    ("PIR", (1.2, 2.0, 1.6), (38, -20, -35)),
    ("SAL", (1.0, 2.2, 1.8), (-20, 50, -15)),
]


@pytest.mark.parametrize(("codes", "spacing", "centre"), CASES)
@pytest.mark.parametrize("method", explain.METHODS)
def test_a_planted_cube_is_found_in_the_scans_own_space(method, codes, spacing, centre, tmp_path, monkeypatch):
    monkeypatch.setattr(occlusion, "FINER", 12)  # quicker; the cube touches no more patches of a size
    image, true = head_with_cube(codes, spacing, centre)
    nibabel.save(image, tmp_path / "head.nii")
    scan = read(tmp_path / "head.nii")
    prepared = prepare(scan, SMALL)
    found = explain.explain(weights_of(Finder()), prepared, "yes", method)
    values = restore(found.values, prepared, scan)
    strong = np.where(values > values.max() / 10, values, 0)
    index = np.array([(strong * grid).sum() for grid in np.indices(values.shape)]) / strong.sum()
    place = scan.affine[:3, :3] @ index + scan.affine[:3, 3]
    assert np.linalg.norm(place - true) <= 3.0


# --- the network, made ready ------------------------------------------------------------------------------


class Branching(Network):
    """A padded network with a shortcut, as ResNet has; all its weights are positive."""

    cam_layer = "last"

    def __init__(self, classes: int = 2):
        super().__init__()
        self.start, self.norm = nn.Conv2d(1, 4, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.long, self.short = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1, stride=2)
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.dense = nn.Linear(4, classes)

    def base(self, x):
        x = self.pool(self.norm(self.start(x)).relu())
        x = (self.long(x) + self.short(x)).relu()
        return self.last(x).relu().mean((2, 3))

    def head(self, features):
        return self.dense(features)


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and batch statistics as after some training."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, network_view.NORMS):
            module.running_mean = torch.randn(module.num_features, generator=draw) * 0.2
            module.running_var = torch.rand(module.num_features, generator=draw) + 0.5
            module.weight.data = torch.rand(module.num_features, generator=draw) + 0.5
            module.bias.data = torch.randn(module.num_features, generator=draw) * 0.2
        elif isinstance(module, (nn.Linear, *network_view.CONVS)):
            fan = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=draw) * (2 / fan) ** 0.5
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=draw) * 0.1
    return network.eval().requires_grad_(False)


def test_cells_of_the_published_network_by_hand():
    # conv 3: +1; pool 2: +½; conv 3: +2; pool 3: +2; conv 3: +6; pool 2: +3; conv 3: +12; pool 3: +12 voxels
    start, step = 1 + 0.5 + 2 + 2 + 6 + 3 + 12 + 12, 2 * 3 * 2 * 3
    _, _, cells = network_view.survey(ClassificationModel3D(), torch.Size([1, 1, 166, 256, 256]))
    assert cells == [(start, step)] * 3


def test_cells_lie_in_the_middle_of_what_they_see():
    network = Branching()
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.01)
    _, _, [(start, step), _] = network_view.survey(network.eval(), torch.Size([1, 1, 96, 96]))
    x = torch.zeros(1, 1, 96, 96, requires_grad=True)
    kept = []
    network.pool = nn.AvgPool2d(3, stride=2, padding=1)  # which sees all of its window
    network.last.register_forward_hook(lambda module, inputs, output: kept.append(output))
    network(x)
    (gradient,) = torch.autograd.grad(kept[0][0, :, 5, 5].sum(), x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows.min() + rows.max()).item() / 2 == start + 5 * step


def test_a_map_is_placed_by_its_cells_not_stretched():
    cam = torch.zeros(4, 4)
    cam[2, 1] = 1
    placed = grad_cam.place(cam, [(5.0, 8.0), (3.0, 8.0)], torch.Size([40, 40])).numpy()
    assert np.unravel_index(placed.argmax(), placed.shape) == (5 + 2 * 8, 3 + 8)
    assert placed[25, 11] == pytest.approx(0.5)  # half-way to the next cell


@pytest.mark.parametrize("shape", [(7, 8), (6, 7, 8)], ids=["picture", "volume"])
def test_what_the_foreground_encloses_is_the_head(shape):
    hollow, full = torch.zeros(2, *shape, dtype=torch.bool)
    full[..., 1:6, 2:7] = True
    hollow[:] = full
    hollow[..., 3, 3:6] = False  # a dark hole, in a volume a tube
    if len(shape) == 3:
        hollow[[0, -1]] = full[[0, -1]]  # and closed
    assert torch.equal(grad_cam.enclosed(hollow), full)
    assert not grad_cam.enclosed(torch.zeros(shape, dtype=torch.bool)).any()


def test_the_gap_between_two_lungs_is_not_enclosed():
    lungs = torch.zeros(9, 12, dtype=torch.bool)
    lungs[1:8, 1:4] = lungs[1:8, 8:11] = lungs[3, 4] = True
    assert torch.equal(grad_cam.enclosed(lungs), lungs)


@pytest.fixture(scope="module")
def published() -> nn.Module:
    return randomise(ClassificationModel3D(shape=(80, 90, 84)))


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    return torch.randn(1, 1, 80, 90, 84, generator=torch.Generator().manual_seed(1))


def test_front_and_tail_are_the_network(published, volume):
    view = NetworkView(published, volume.shape, 0)
    assert view.cut
    torch.testing.assert_close(view.tail(view.front(volume)), published(volume), atol=1e-4, rtol=1e-4)


def test_folding_leaves_the_answer_as_it_is():
    network, x = randomise(Branching()), torch.randn(2, 1, 64, 64)
    view = NetworkView(network, x[:1].shape, 0)
    assert isinstance(view.network.norm, nn.Identity)
    torch.testing.assert_close(view.tail(x), network(x))


def test_a_patch_is_worked_out_where_it_is_seen_and_nowhere_else(published, volume):
    view = NetworkView(published, volume.shape, 0)
    middle, filled = view.front(volume), torch.zeros_like(volume)
    spots = [((0, 9), (0, 11), (0, 10)), ((31, 40), (40, 51), (33, 43)), ((72, 80), (81, 90), (75, 84))]
    expected = []
    for spot in spots:
        whole = volume.clone()
        whole[(0, 0, *occlusion.cut(spot))] = 0
        expected.append(published(whole))
    torch.testing.assert_close(
        occlusion.occluded(view, volume, middle, filled, spots), torch.cat(expected), atol=1e-4, rtol=1e-4
    )


def test_relevance_in_slabs_is_relevance_in_one_piece(published, volume):
    weights = weights_of(published, codes="abcde")
    in_slabs = explain.explain(weights, prepared_of(volume[0]), "b", "relevance").values
    view = NetworkView(published, volume.shape, 1)
    view.cut, view.tail = False, view.network.forward
    whole, _ = relevance.relevance(view, volume, prepared_of(volume[0]), lambda fraction: None)
    np.testing.assert_allclose(in_slabs, whole, atol=1e-5 * float(whole.abs().max()))


# --- against an independent library -----------------------------------------------------------------------


class Chain(nn.Sequential, Network):
    """A chain of layers with what heat maps ask of a network."""


def chain(bias: bool = True) -> Chain:
    network = Chain(
        nn.Conv3d(1, 4, 3, bias=bias),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 6, 3, bias=bias),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Linear(6 * 27, 8, bias=bias),
        nn.ReLU(),
        nn.Linear(8, 3, bias=bias),
    )
    network.cam_layer = "4"
    return randomise(network, seed=3)


def with_score(network: nn.Sequential, target: int) -> nn.Sequential:
    """The chain, then the score as one more layer: the target's logit less the mean of the two others."""
    margin = nn.Linear(3, 1, bias=False)
    margin.weight.data.fill_(-0.5)[0, target] = 1.0
    return nn.Sequential(*copy.deepcopy(network), margin).requires_grad_(True)


@pytest.fixture
def cube() -> torch.Tensor:
    return torch.randn(1, 1, 18, 18, 18, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("target", [0, 2])
def test_grad_cam_agrees_with_captum(cube, target):
    network = chain()
    view = NetworkView(network, cube.shape, target)
    theirs = with_score(network, target)
    expected = LayerGradCam(theirs, theirs[4]).attribute(cube, target=0)
    expected = grad_cam.place(expected[0, 0].detach().relu(), view.cells, cube.shape[2:])
    ours, _ = grad_cam.grad_cam(view, cube, prepared_of(cube[0]), lambda fraction: None)
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("target", [0, 2])
def test_occlusion_agrees_with_captum(cube, target):
    network, prepared = chain(), prepared_of(cube[0])
    ours, _ = occlusion.occlusion(
        NetworkView(network, cube.shape, target), cube, prepared, lambda fraction: None, 6.0, 0
    )
    expected = Occlusion(with_score(network, target)).attribute(
        cube, (1, 6, 6, 6), strides=(1, 6, 6, 6), baselines=occlusion.blurred(cube, (6, 6, 6)), target=0
    )
    torch.testing.assert_close(ours, expected[0, 0].detach().float(), atol=1e-3, rtol=1e-3)


def without_flatten(network: nn.Sequential) -> nn.Sequential:
    """The same with dense layers written as convolutions: captum's LRP knows no layer that flattens."""
    layers_, shape = [], (3, 3, 3)
    for layer in network:
        if isinstance(layer, nn.Linear):
            conv = nn.Conv3d(layer.in_features // int(np.prod(shape)), layer.out_features, shape)
            conv.weight.data = layer.weight.data.view_as(conv.weight)
            conv.bias.data = torch.zeros_like(conv.bias) if layer.bias is None else layer.bias.data
            layer, shape = conv, (1, 1, 1)
        if not isinstance(layer, nn.Flatten):
            layers_.append(layer)
    return nn.Sequential(*layers_).requires_grad_(True)


@pytest.mark.parametrize("target", [0, 2])
def test_relevance_agrees_with_captum(cube, target):
    network = chain()
    theirs = without_flatten(with_score(network, target))
    for number, layer in enumerate(theirs):
        if isinstance(layer, nn.Conv3d):
            gamma = number and layer.kernel_size == (3, 3, 3) and layer.out_channels == 6
            layer.rule = GammaRule(gamma=relevance.GAMMA) if gamma else EpsilonRule(epsilon=relevance.EPSILON)
    expected = LRP(theirs).attribute(cube.clone().requires_grad_(), target=(0, 0, 0, 0))[0, 0].detach()
    ours, _ = relevance.relevance(
        NetworkView(network, cube.shape, target), cube, prepared_of(cube[0]), lambda f: None
    )
    torch.testing.assert_close(ours, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)


def test_relevance_is_conserved_without_biases_and_its_loss_reported_with_them(cube):
    found = {}
    for bias in (False, True):
        weights = weights_of(chain(bias), codes="abc")
        found[bias] = explain.explain(weights, prepared_of(cube[0]), "a", "relevance")
    assert abs(found[False].values.sum() / found[False].score - 1) < 0.01
    assert abs(found[False].absorbed) < 0.01
    assert found[True].absorbed == pytest.approx(1 - found[True].values.sum() / found[True].score, abs=1e-4)
    assert abs(found[True].absorbed) > 0.01


# --- may it be believed? ----------------------------------------------------------------------------------


def as_map(values: np.ndarray) -> Map:
    return Map(values.astype(np.float32), "grad-cam", "yes", 1.0)


def test_agreement_is_rank_correlation_over_the_foreground():
    values = np.random.default_rng(0).normal(size=(12, 12, 12))
    inside = torch.zeros(12, 12, 12, dtype=torch.bool)
    inside[2:10] = True
    bent = np.where(inside.numpy(), np.exp(values), 99)  # the same order inside, anything outside
    assert explain.agreement(as_map(values), as_map(bent), inside) == pytest.approx(1)
    assert explain.agreement(as_map(values), as_map(-values), inside) == pytest.approx(-1)
    assert explain.agreement(as_map(values), as_map(np.zeros_like(values)), inside) == 0


def test_a_map_that_outlives_shuffled_weights_is_told_from_one_that_does_not(cube):
    prepared = prepared_of(cube[0])
    learned = weights_of(chain(), codes="abc")
    made = explain.explain(learned, prepared, "a", "relevance")
    assert explain.randomised(learned, prepared, made) < explain.SAME

    class Deaf(Finder):  # answers by its own rule, whatever its last layer says
        def head(self, features):
            return torch.stack([features.sum(1), features.new_zeros(len(features))], 1)

    prepared = prepared_of(torch.randn(1, *SMALL.shape, generator=torch.Generator().manual_seed(2)) * 3)
    deaf = weights_of(Deaf(bright=0.0))
    made = explain.explain(deaf, prepared, "yes", "relevance")
    assert explain.randomised(deaf, prepared, made) >= explain.SAME


# --- where it looks ---------------------------------------------------------------------------------------

# middles of structures in MNI space, mm (from the published probabilistic atlases)
PLACES = [
    ("hippocampus-left", (-27, -20, -15)),
    ("hippocampus-right", (28, -20, -15)),
    ("ventricles", (10, 10, 15)),
    ("cerebellum", (25, -65, -40)),
    ("frontal", (30, 45, 20)),
    ("parietal", (35, -50, 55)),
    ("occipital", (15, -90, 5)),
    ("temporal", (58, -20, -15)),
    ("deep", (0, -28, -30)),
]


def head_map(mni: tuple[float, ...]) -> np.ndarray:
    """A ball of 6 mm on the head grid, at a place of MNI space, seen from where the brain's middle lies there."""
    anchor = np.array(HEAD.anchor) * (np.array(HEAD.shape) - 1)
    middle = anchor + np.array([0, -1, 3]) / HEAD.spacing  # measured on real heads
    centre = middle + (np.array(mni) - [0, -22, 9.5]) / HEAD.spacing
    index = np.ix_(*(np.arange(n) for n in HEAD.shape))
    return sum(((i - c) * mm) ** 2 for i, c, mm in zip(index, centre, HEAD.spacing, strict=True)) < 36


@pytest.mark.parametrize(("name", "mni"), PLACES)
def test_regions_name_known_places(name, mni):
    made = as_map(head_map(mni))
    shares = regions(made, prepared_of(torch.zeros(1, 1, 1, 1)), HEAD)
    assert shares[name] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert warnings(made, shares) == []


def test_a_map_outside_the_brain_warns():
    values = np.zeros(HEAD.shape)
    values[:20, :20, :20] = 1
    values[80:90, 120:130, 140:150] = -5  # what speaks against is not counted
    shares = regions(as_map(values), prepared_of(torch.zeros(1, 1, 1, 1)), HEAD)
    assert shares[OUTSIDE] == pytest.approx(1)
    assert warnings(as_map(values), shares) == ["mostly-outside"]


def test_a_map_in_which_nothing_speaks_for_the_class_says_so():
    nothing = as_map(-np.ones(HEAD.shape))
    assert warnings(nothing, {}) == ["empty"]


def test_no_regions_where_no_head_was_placed():
    picture = Contract(kind="image", shape=(8, 8))
    assert regions(as_map(np.ones((8, 8))), prepared_of(torch.zeros(1, 8, 8)), picture) == {}


# --- refusals, and every network --------------------------------------------------------------------------


def test_refusals_name_what_there_is(cube):
    weights = weights_of(chain(), codes="abc")
    with pytest.raises(explain.ExplainError, match="'saliency' is unknown; choose grad-cam, occlusion, relevance"):
        explain.explain(weights, prepared_of(cube[0]), "a", "saliency")
    with pytest.raises(explain.ExplainError, match="class 'z' is unknown; made has a, b, c"):
        explain.explain(weights, prepared_of(cube[0]), "z")


def test_progress_ends_at_one(cube):
    heard = []
    explain.explain(weights_of(chain(), codes="abc"), prepared_of(cube[0]), "a", "occlusion", heard.append)
    assert heard == sorted(heard) and heard[-1] == 1


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"ClassificationModel3D"}))
def test_every_picture_network_has_its_maps(name):
    torch.manual_seed(0)
    network = randomise(NETWORKS[name](2))
    side = {"SliceCNN": 100, "VGGFeatures": 224}.get(name, 64)
    weights = weights_of(network, Contract(kind="image", shape=(side, side), channels=3))
    x = torch.randn(3, side, side)
    view = NetworkView(network, torch.Size([1, 3, side, side]), 0)
    expected = view.score(network(x[None])).item()
    for method in ("grad-cam", "relevance"):
        found = explain.explain(weights, prepared_of(x), "yes", method)
        assert found.values.shape == (side, side) and np.isfinite(found.values).all()
        assert found.score == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert np.abs(found.values).sum() < 1000 * abs(expected)  # shares that do not blow up
    [(start, step), _] = view.cells
    assert 0 <= start <= step <= 32


def test_the_network_in_use_is_left_as_it_is(cube):
    network = chain()
    before = copy.deepcopy(network.state_dict())
    for method in explain.METHODS:
        explain.explain(weights_of(network, codes="abc"), prepared_of(cube[0]), "a", method)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
