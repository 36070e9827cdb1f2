import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

CLIP_OBS = 10.0  # standard deviations
_MIN_STD = 1e-2  # a feature that was constant so far would otherwise become an outlier at its first change
_MIN_SCREEN_SIZE = 36  # pixels: the smallest input of the convolutions for Atari's screens


def make_network(
    observation_shape: Sequence[int], out_features: int, hidden: Sequence[int], last_scale: float = 1.0
) -> nn.Sequential:
    """Return an MLP: tanh layers after ``RunningNorm``, or ReLU layers after ``ConvEncoder`` for images.

    A small ``last_scale``, factor of the last layer's initial weights, makes a policy start near uniform.
    """
    image = is_image(observation_shape)
    front = ConvEncoder(observation_shape) if image else RunningNorm(observation_shape)
    layers = mlp_layers(front.features, hidden, nn.ReLU if image else nn.Tanh)
    last = nn.Linear(hidden[-1] if hidden else front.features, out_features)
    net = nn.Sequential(front, *layers, last)
    if image:
        _orthogonal_init_(net)
    with torch.no_grad():
        last.weight.mul_(last_scale)
        last.bias.zero_()
    return net


def _orthogonal_init_(net: nn.Sequential) -> None:
    """Initialize ReLU layers and the linear last layer orthogonally, which preserves the scale of the signal.

    Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
    2014. Without it a policy that reads images soon collapses to a single action.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight, 1.0 if layer is net[-1] else math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def mlp_layers(in_features: int, hidden: Sequence[int], activation: type[nn.Module]) -> list[nn.Module]:
    """Return linear layers, each followed by an activation."""
    if any(units < 1 for units in hidden):
        raise ValueError(f"hidden layers must have at least 1 unit each, got hidden={list(hidden)}")
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(in_features, units), activation()]
        in_features = units
    return layers


def is_image(shape: Sequence[int]) -> bool:
    """Return whether observations of a shape are images large enough for a convolution."""
    return len(shape) == 3 and min(_size_and_channels(shape)[0]) >= 5


def _size_and_channels(shape: Sequence[int]) -> tuple[Sequence[int], int]:
    """Return height and width, and the number of channels: the smaller of the first and the last dimension."""
    return (shape[:-1], shape[-1]) if shape[-1] < shape[0] else (shape[1:], shape[0])


class ConvEncoder(nn.Module):
    """Convolutional features of an image with channels first or last, whichever dimension is smaller.

    Small images: 16 filters of 3 × 3, as in Young & Tian, "MinAtar: an Atari-inspired testbed", 2019. Screens: the
    convolutions of Mnih et al., "Human-level control through deep reinforcement learning", 2015. Bytes are scaled to
    [0, 1].
    """

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.channels_last = shape[-1] < shape[0]
        size, channels = _size_and_channels(shape)
        if min(size) < _MIN_SCREEN_SIZE:
            layers: list[nn.Module] = [nn.Conv2d(channels, 16, kernel_size=3), nn.ReLU()]
        else:
            layers = [nn.Conv2d(channels, 32, kernel_size=8, stride=4), nn.ReLU()]
            layers += [nn.Conv2d(32, 64, kernel_size=4, stride=2), nn.ReLU()]
            layers += [nn.Conv2d(64, 64, kernel_size=3), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            self.features = self.layers(torch.zeros(1, channels, *size)).shape[-1]

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch features"]:
        image = observation.float() / 255 if observation.dtype == torch.uint8 else observation.float()
        if self.channels_last:
            image = image.movedim(-1, -3)
        batch = image.shape[:-3]
        images = image.reshape(-1, *image.shape[-3:]).contiguous()  # a convolution is slower on a transposed view
        return self.layers(images).view(*batch, self.features)


class RunningNorm(nn.Module):
    """Flattens observations and normalizes them by their running mean and standard deviation.

    Before the first ``update`` the mean is 0 and the standard deviation 1. Update between rollouts only: the policy
    must not change during a rollout. Values in double precision, such as seconds since 1970, may not be representable
    in single precision; they are first shifted by an origin, the mean of the first batch.
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
        for name in ("origin", "mean", "variance"):
            self.register_buffer(name, torch.zeros(self.features))
        self.register_buffer("std", torch.ones(self.features))

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch features"]:
        """Return normalized observations, clipped to ten standard deviations."""
        return ((self._flatten(observation) - self.mean) / self.std).clamp(-CLIP_OBS, CLIP_OBS)

    @torch.no_grad()
    def update(self, observation: Shaped[Tensor, "..."]) -> None:
        """Update the statistics with a batch, which may be empty."""
        if not observation.numel():
            return
        if self.count == 0 and needs_float64(observation):
            self.origin = flatten_observation(observation, self.dims).flatten(0, -2).double().mean(0).to(self.origin)
        x = self._flatten(observation).flatten(0, -2)
        self.count = self.count + len(x)
        share, step = len(x) / self.count, x.mean(0) - self.mean
        within = torch.lerp(self.variance, x.var(0, correction=0), share)
        self.variance = within + share * (1 - share) * step**2
        self.mean = self.mean + share * step
        self.std = self.variance.sqrt().clamp(min=_MIN_STD)

    def _flatten(self, observation: Tensor) -> Float[Tensor, "*batch features"]:
        x = flatten_observation(observation, self.dims)
        return (x.double() - self.origin.double()).float() if needs_float64(x) else x.float()


def needs_float64(x: Tensor) -> bool:
    """Return whether single precision may round a tensor, on a device that has double precision."""
    return x.dtype.itemsize > 2 and x.dtype != torch.float32 and x.device.type != "mps"


def flatten_observation(observation: Shaped[Tensor, "..."], dims: int) -> Shaped[Tensor, "*batch features"]:
    """Flatten the last ``dims`` dimensions, those of one observation, into one."""
    if dims == 0:
        return observation.unsqueeze(-1)
    return observation if dims == 1 else observation.flatten(-dims)
