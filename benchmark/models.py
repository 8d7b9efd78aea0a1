"""The networks of the protocol, for 32×32 RGB images. `build_model` makes every model in the project.

Convolutions have no bias, because a batch normalisation follows each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

    `shortcut` is an empty Sequential (identity), or Sequential(conv1x1, bn) where the shape changes.
    Source: He et al. 2015, "Deep Residual Learning for Image Recognition", section 3.3 (projection shortcuts).
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(branch + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """CIFAR-style ResNet of depth 6n + 2: three stages of n blocks, widths 16, 32, 64.

    Source: He et al. 2015, section 4.2.
    """

    def __init__(self, blocks_per_stage: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(16, 16, blocks_per_stage, stride=1)
        self.layer2 = self._stage(16, 32, blocks_per_stage, stride=2)
        self.layer3 = self._stage(32, 64, blocks_per_stage, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


class VGG(nn.Module):
    """VGG-16 with batch normalisation: 13 convolutions and a head Linear 512–512–512–classes with dropout 0.5.

    Source: Simonyan & Zisserman 2014, configuration D, with the 32×32 head of the public weight-initialisation task.
    """

    PLAN: tuple[int | str, ...] = (
        *(64, 64, "pool"),
        *(128, 128, "pool"),
        *(256, 256, 256, "pool"),
        *(512, 512, 512, "pool"),
        *(512, 512, 512, "pool"),
    )

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for step in self.PLAN:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, step, 3, padding=1, bias=False), nn.BatchNorm2d(step), nn.ReLU(inplace=True)]
            channels = step
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(512, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class SmallVGG(VGG):
    """VGG with one convolution before each pooling, five in all, of half the usual widths; the same head."""

    PLAN = (32, "pool", 64, "pool", 128, "pool", 256, "pool", 512, "pool")


class InvertedResidual(nn.Module):
    """Expand (1×1), depthwise (3×3), project (1×1, linear), added to the input where the shapes allow.

    Source: Sandler et al. 2018, "MobileNetV2", section 3.3 and figure 4.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.use_residual = stride == 1 and in_channels == channels
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.conv(x)
        return x + branch if self.use_residual else branch


class MobileNetV2(nn.Module):
    """MobileNetV2 for 32×32 images. The stem and the second stage have stride 1, so the last map is 4×4.

    Source: Sandler et al. 2018, table 2, with the strides usual for CIFAR.
    """

    # expansion, channels, blocks, stride of the first block
    PLAN = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
        ]
        in_channels = 32
        for expansion, channels, blocks, first_stride in self.PLAN:
            for index in range(blocks):
                stride = first_stride if index == 0 else 1
                layers.append(InvertedResidual(in_channels, channels, stride, expansion))
                in_channels = channels
        layers += [nn.Conv2d(in_channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": lambda num_classes: ResNet(3, num_classes),
    "resnet56": lambda num_classes: ResNet(9, num_classes),
    "vgg8bn": SmallVGG,
    "vgg16bn": VGG,
    "mobilenetv2": MobileNetV2,
}


def build_model(arch: str, num_classes: int) -> nn.Module:
    """Build the network `arch` (see `ARCHITECTURES`) on the CPU in fp32, as torch's constructors initialise it.

    It maps images (N, 3, 32, 32) float32 to logits (N, num_classes) float32.
    Raises ValueError for an unknown architecture or fewer than two classes.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, not {num_classes}")
    return ARCHITECTURES[arch](num_classes)


def init_config(model: nn.Module, arch: str, num_classes: int) -> dict[str, str | int]:
    """Return the `config` of `initialize_weights(model, config)`: arch, num_classes, depth (Conv2d + Linear)."""
    depth = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())
    return {"arch": arch, "num_classes": num_classes, "depth": depth}
