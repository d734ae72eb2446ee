"""The networks of the picture studies: small CNNs, torchvision's backbones, VGG features, an attention pyramid.

torchvision is imported only when one of its networks is built: that takes a second, and few ask for one.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.base import Network, present


class PictureNetwork(Network):
    """What the picture networks share: an ImageNet start for those that have one."""

    def start_from(self, file: Path | None) -> int:
        """Begin with ImageNet weights, from a local file or else torchvision's download; how many tensors fit.

        Without `file` this goes to the network, so it is only called where a person asks for it.
        """
        if not self.imagenet:
            raise ValueError(f"{type(self).__name__} has no ImageNet weights; train it from the start")
        if file is None:
            from torchvision.models import get_model_weights

            state = get_model_weights(self.imagenet).DEFAULT.get_state_dict(progress=True)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        return _fill(self.trunk(), state)


def _fill(trunk: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Copies what has the same name and shape; a file that fits nowhere is refused."""
    own = trunk.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if len(fitting) < 0.8 * len(own):
        raise ValueError(f"only {len(fitting)} of {len(own)} tensors fit; give the weights of this very network")
    trunk.load_state_dict(fitting, strict=False)
    return len(fitting)


class SliceCNN(PictureNetwork):
    """The published small CNN: two 2×2 convolutions, a wide dense layer; 18,909,380 numbers at 100×100×3."""

    cam_layer = "relu_2"

    def __init__(
        self, classes: int = 4, dropout: float = 0.3, shape: Sequence[int] = (100, 100), channels: int = 3
    ):
        super().__init__()
        rows, columns = (((size - 1) // 2 - 1) // 2 for size in shape)
        self.conv_1, self.relu_1, self.pool_1 = nn.Conv2d(channels, 64, 2), nn.ReLU(), nn.MaxPool2d(2)
        self.conv_2, self.relu_2, self.pool_2 = nn.Conv2d(64, 128, 2), nn.ReLU(), nn.MaxPool2d(2)
        self.dropout_1, self.dropout_2, self.dropout_3 = (nn.Dropout(dropout) for _ in range(3))
        self.dense_1, self.relu_3 = nn.Linear(128 * rows * columns, 256), nn.ReLU()
        self.dense_2 = nn.Linear(256, classes)

    def base(self, x: Tensor) -> Tensor:
        """All of it: the wide dense layer's 18,874,624 numbers, asked again, cost as much as all before them."""
        x = self.dropout_1(self.pool_1(self.relu_1(self.conv_1(x))))  # (N, 64, 49, 49)
        x = self.dropout_2(self.pool_2(self.relu_2(self.conv_2(x))))  # (N, 128, 24, 24)
        return self.relu_3(self.dense_1(x.flatten(1)))  # (N, 256)

    def head(self, features: Tensor) -> Tensor:
        return self.dense_2(self.dropout_3(features))


class SmallCNN(PictureNetwork):
    """Five convolutions with batch norm, each followed by pooling; 0.25 million numbers, quick on a processor.

    The mean and the highest answer of each channel over the picture are its features: something small and bright
    counts wherever it lies.
    """

    cam_layer = "stages.4"
    widths = (16, 32, 64, 128, 128)

    def __init__(self, classes: int = 2, dropout: float = 0.2):
        super().__init__()
        sizes = itertools.pairwise((3, *self.widths))
        self.stages = nn.Sequential(*(self.stage(a, b, first=number == 0) for number, (a, b) in enumerate(sizes)))
        self.mean, self.highest = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.dropout, self.dense = nn.Dropout(dropout), nn.Linear(2 * self.widths[-1], classes)

    @staticmethod
    def stage(before: int, after: int, first: bool) -> nn.Sequential:
        pool = [] if first else [nn.MaxPool2d(2)]
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return nn.Sequential(*pool, conv, nn.BatchNorm2d(after), nn.ReLU())

    def base(self, x: Tensor) -> Tensor:
        x = self.stages(x)  # (N, 128, h/16, w/16)
        return torch.cat([self.mean(x), self.highest(x)], 1).flatten(1)  # (N, 256)

    def head(self, features: Tensor) -> Tensor:
        return self.dense(self.dropout(features))


class Backbone(PictureNetwork):
    """A torchvision classifier with its last layer made ours."""

    last: str  # dotted name of the layer that gives torchvision's 1,000 classes

    def __init__(self, classes: int = 2):
        super().__init__()
        from torchvision.models import get_model

        self.net = get_model(self.imagenet, weights=None)
        width = self.net.get_submodule(self.last).in_features
        self.net.set_submodule(self.last, nn.Identity())
        self.dense = nn.Linear(width, classes)

    def trunk(self) -> nn.Module:
        return self.net

    def base(self, x: Tensor) -> Tensor:
        return self.net(x)  # (N, 512), (N, 4096) or (N, 1024)

    def head(self, features: Tensor) -> Tensor:
        return self.dense(features)


class ResNet18(Backbone):
    imagenet, last, cam_layer = "resnet18", "fc", "net.layer4"


class VGG11(Backbone):
    imagenet, last, cam_layer = "vgg11_bn", "classifier.6", "net.features.27"

    def base(self, x: Tensor) -> Tensor:
        x = self.net.avgpool(self.net.features(x)).flatten(1)  # (N, 25088)
        return self.net.classifier[:2](x)  # (N, 4096), before the first dropout

    def top(self, x: Tensor) -> Tensor:
        return self.net.classifier[2:](x)  # (N, 4096)


class DenseNet121(Backbone):
    imagenet, last, cam_layer = "densenet121", "classifier", "net.features.norm5"


class VGGFeatures(PictureNetwork):
    """VGG-16 up to its fifth pooling, never trained here, then two dense layers of 512 with batch norm.

    `frozen` gives the 25,088 numbers that do not change while the rest is trained: training computes them once.
    """

    imagenet, cam_layer = "vgg16", "vgg.features.29"

    def __init__(self, classes: int = 2, dropout: float = 0.5, shape: Sequence[int] = (224, 224)):
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers

        # Without the dense layers of 120 million numbers, which nothing here needs.
        self.vgg = nn.ModuleDict({"features": make_layers(cfgs["D"])})
        for conv in self.vgg["features"].children():
            if isinstance(conv, nn.Conv2d):  # as torchvision begins them
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(present(conv.bias))
        self.vgg.requires_grad_(False)
        self.dense_1 = nn.Linear(512 * (shape[0] // 32) * (shape[1] // 32), 512)  # 25088 at full size
        self.norm_1 = nn.BatchNorm1d(512)
        self.dense_2, self.norm_2 = nn.Linear(512, 512), nn.BatchNorm1d(512)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(dropout)
        self.dense_3 = nn.Linear(512, classes)

    def trunk(self) -> nn.Module:
        return self.vgg

    def stem(self) -> list[nn.Module]:
        return [self.vgg]

    def through_stem(self, x: Tensor) -> Tensor:
        return self.vgg["features"](x).flatten(1)  # (N, 512, 7, 7) → (N, 25088)

    def thaw(self, frozen: Tensor) -> Tensor:
        """The trained layers' features of what `frozen` gave."""
        x = self.dropout(self.relu(self.norm_1(self.dense_1(frozen))))  # (N, 512)
        return self.relu(self.norm_2(self.dense_2(x)))  # (N, 512)

    def base(self, x: Tensor) -> Tensor:
        return self.frozen(x)

    def top(self, x: Tensor) -> Tensor:
        return self.thaw(x)

    def head(self, features: Tensor) -> Tensor:
        return self.dense_3(self.dropout(features))


class AttentionPyramid(PictureNetwork):
    """ResNet-50 with a feature pyramid; each of five levels votes, and softmax attention weighs the votes."""

    imagenet, cam_layer = "resnet50", "pyramid.body.layer4"
    levels = 5

    def __init__(self, classes: int = 2):
        super().__init__()
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

        self.pyramid = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        self.votes = nn.ModuleList(
            nn.Sequential(nn.Conv2d(256, classes, 1), nn.BatchNorm2d(classes), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            for _ in range(self.levels)
        )
        self.weigh = nn.Linear(self.levels * classes, self.levels)

    def trunk(self) -> nn.Module:
        return self.pyramid.body

    def shares(self, features: Tensor) -> dict[str, dict[str, float]]:
        """For one answer's features (1, 5·K): how much each level counted, by its fineness, finest first."""
        counted = self.attention(features)[0].tolist()
        return {"attention": {f"1/{4 * 2**level}": share for level, share in enumerate(counted)}}

    def base(self, x: Tensor) -> Tensor:
        maps = self.pyramid(x).values()  # five of (N, 256, h, w), each half as fine as the one before
        votes = [vote(level).flatten(1) for vote, level in zip(self.votes, maps, strict=True)]
        return torch.cat(votes, 1)  # (N, 5·K)

    def attention(self, features: Tensor) -> Tensor:
        """How much each level counts, finest first; sums to one."""
        return self.weigh(features).softmax(1)  # (N, 5)

    def head(self, features: Tensor) -> Tensor:
        votes = features.view(len(features), self.levels, -1)  # (N, 5, K)
        return (votes * self.attention(features).unsqueeze(2)).sum(1)  # (N, K)


NETWORKS: dict[str, type[PictureNetwork]] = {
    "SliceCNN": SliceCNN,
    "SmallCNN": SmallCNN,
    "resnet18": ResNet18,
    "vgg11_bn": VGG11,
    "densenet121": DenseNet121,
    "VGGFeatures": VGGFeatures,
    "AttentionPyramid": AttentionPyramid,
}
