import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

OUTLIER = 10.0  # standard deviations
SMALLEST_STD = 1e-2  # of numbers that hardly change, and would become outliers at the first change
SCREEN = 36  # pixels: the least that the convolution for Atari's screens can read


def network(
    observation_shape: Sequence[int], outputs: int, hidden: Sequence[int], last_scale: float = 1.0
) -> nn.Sequential:
    """Tanh layers over the standardised observation; ReLU layers over a convolution, if it is a picture.

    Args:
        observation_shape: of one observation.
        outputs: units of the last layer, which is linear.
        hidden: units of the others.
        last_scale: factor on the last layer's first weights: a small one makes a policy begin near uniform.

    Example:
        >>> network((4,), 2, hidden=(64,))(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3, 2])
    """
    picture = is_picture(observation_shape)
    front = Convolution(observation_shape) if picture else Standardize(observation_shape)
    layers = hidden_layers(front.features, hidden, nn.ReLU if picture else nn.Tanh)
    last = nn.Linear(hidden[-1] if hidden else front.features, outputs)
    net = nn.Sequential(front, *layers, last)
    if picture:
        make_orthogonal(net)
    with torch.no_grad():
        last.weight.mul_(last_scale)
        last.bias.zero_()
    return net


def make_orthogonal(net: nn.Sequential) -> None:
    """Draw weights that keep a signal's size through ReLU layers, so that a policy's first steps stay small.

    Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
    2014. Without it a policy that reads pictures soon settles on always doing the same.

    Args:
        net: its last layer is linear, and no ReLU follows it.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight, 1.0 if layer is net[-1] else math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def hidden_layers(features: int, hidden: Sequence[int], activation: type[nn.Module]) -> list[nn.Module]:
    """Linear layers with an activation behind each.

    Raises:
        ValueError: a layer has no unit.

    Example:
        >>> hidden_layers(4, [64], nn.Tanh)
        [Linear(in_features=4, out_features=64, bias=True), Tanh()]
    """
    if any(units < 1 for units in hidden):
        raise ValueError(f"hidden layers must have at least 1 unit each, got hidden={list(hidden)}")
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(features, units), activation()]
        features = units
    return layers


def is_picture(shape: Sequence[int]) -> bool:
    """Whether observations of that shape are pictures, large enough for a convolution.

    Example:
        >>> is_picture((10, 10, 4)), is_picture((4, 4, 16)), is_picture((10, 3, 10)), is_picture((4,))
        (True, False, False, False)
    """
    return len(shape) == 3 and min(sides_and_channels(shape)[0]) >= 5


def sides_and_channels(shape: Sequence[int]) -> tuple[Sequence[int], int]:
    """Height and width of a picture, and the number of its channels, which stand first or last: where the fewer are."""
    return (shape[:-1], shape[-1]) if shape[-1] < shape[0] else (shape[1:], shape[0])


class Convolution(nn.Module):
    """Features of a picture, whose channels stand first or last: where the fewer are.

    Small pictures are read by the convolution of Young & Tian, "MinAtar: an Atari-inspired testbed", 2019: 16 filters
    of 3 × 3. Screens by that of Mnih et al., "Human-level control through deep reinforcement learning", 2015. Bytes
    are brought into [0, 1].

    Args:
        shape: of one picture.

    Example:
        >>> convolution = Convolution((10, 10, 4))
        >>> convolution(torch.zeros(5, 10, 10, 4, dtype=torch.bool)).shape == (5, convolution.features)
        True
    """

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.channels_last = shape[-1] < shape[0]
        sides, channels = sides_and_channels(shape)
        if min(sides) < SCREEN:
            layers: list[nn.Module] = [nn.Conv2d(channels, 16, kernel_size=3), nn.ReLU()]
        else:
            layers = [nn.Conv2d(channels, 32, kernel_size=8, stride=4), nn.ReLU()]
            layers += [nn.Conv2d(32, 64, kernel_size=4, stride=2), nn.ReLU()]
            layers += [nn.Conv2d(64, 64, kernel_size=3), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            self.features = self.layers(torch.zeros(1, channels, *sides)).shape[-1]

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch features"]:
        """Give the features of each picture, as one dimension."""
        picture = observation.float() / 255 if observation.dtype == torch.uint8 else observation.float()
        if self.channels_last:
            picture = picture.movedim(-1, -3)
        batch = picture.shape[:-3]
        pictures = picture.reshape(-1, *picture.shape[-3:]).contiguous()  # a convolution is slower on a transposed view
        return self.layers(pictures).view(*batch, self.features)


class Standardize(nn.Module):
    """Observations with their own dimensions made one, each number with mean 0 and standard deviation 1.

    Mean and deviation are those of all observations it was updated with, so that they settle; before the first, 0 and
    1. A policy that changed while it acts would not be the one that is learned from: update between rollouts.

    Numbers that single precision cannot hold, such as seconds since 1970, are measured from an origin, about where the
    first of them were, before they are rounded to it.

    Args:
        observation_shape: of one observation.

    Example:
        >>> standardize = Standardize((1,))
        >>> standardize.update(torch.tensor([[10.0], [30.0]]))
        >>> standardize(torch.tensor([20.0, 40.0]).unsqueeze(-1)).squeeze(-1)
        tensor([0., 2.])
    """

    count: Tensor
    origin: Tensor
    mean: Tensor
    variance: Tensor
    std: Tensor

    def __init__(self, observation_shape: Sequence[int]):
        super().__init__()
        self.dims, self.features = len(observation_shape), math.prod(observation_shape)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("origin", torch.zeros(self.features))
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("variance", torch.zeros(self.features))
        self.register_buffer("std", torch.ones(self.features))

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch numbers"]:
        """Flatten and standardise; what lies more than ten deviations away is put there."""
        return ((self.flat(observation) - self.mean) / self.std).clamp(-OUTLIER, OUTLIER)

    @torch.no_grad()
    def update(self, observation: Shaped[Tensor, "..."]) -> None:
        """Learn from a batch; nothing from an empty one."""
        if not observation.numel():
            return
        if self.count == 0 and is_wide(observation):
            self.origin = flat_numbers(observation, self.dims).flatten(0, -2).double().mean(0).to(self.origin)
        x = self.flat(observation).flatten(0, -2)
        self.count = self.count + len(x)
        share, step = len(x) / self.count, x.mean(0) - self.mean
        within = torch.lerp(self.variance, x.var(0, correction=0), share)
        self.variance = within + share * (1 - share) * step**2
        self.mean = self.mean + share * step
        self.std = self.variance.sqrt().clamp(min=SMALLEST_STD)

    def flat(self, observation: Tensor) -> Float[Tensor, "*batch numbers"]:
        """Make the observation's own dimensions one, and take the origin away."""
        numbers = flat_numbers(observation, self.dims)
        return (numbers.double() - self.origin.double()).float() if is_wide(numbers) else numbers.float()


def is_wide(numbers: Tensor) -> bool:
    """Whether single precision may round the numbers, and their device has double precision."""
    return numbers.dtype.itemsize > 2 and numbers.dtype != torch.float32 and numbers.device.type != "mps"


def flat_numbers(observation: Shaped[Tensor, "..."], dims: int) -> Shaped[Tensor, "*batch numbers"]:
    """Make the last dimensions, those of one observation, one.

    Example:
        >>> flat_numbers(torch.zeros(7, 3, 2), dims=2).shape, flat_numbers(torch.zeros(7), dims=0).shape
        (torch.Size([7, 6]), torch.Size([7, 1]))
    """
    if dims == 0:
        return observation.unsqueeze(-1)
    return observation if dims == 1 else observation.flatten(-dims)
