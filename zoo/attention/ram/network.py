import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.attention.ram.glimpse import GlimpseSensor


class Rollout(NamedTuple):
    """What happened while looking at a batch of pictures."""

    states: Float[Tensor, "glimpses rollouts images hidden"]
    """``h_t``, after each glimpse."""
    locations: Float[Tensor, "glimpses rollouts images 2"]
    """``l_t``, where each glimpse was taken; raw, detached."""
    means: Float[Tensor, "moves rollouts images 2"]
    """``μ(h_t)``, the means of all locations but the first; ``moves = glimpses - 1``, or 0 if the gaze was given."""


class RecurrentAttentionNetwork(nn.Module):
    """The networks of RAM and one walk over a picture with them.

    ``g_t = glimpse(x, l_t)``, ``h_t = core(h_{t-1}, g_t)``, ``l_{t+1} ~ N(μ(h_t), σ²)``, class from the last ``h``:
    Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014. All layers have the paper's
    sizes and ReLUs.

    The location network tells how far to stray from a resting place, ``μ(h_t) = spiral_t + locator(h_t)``; a gaze that
    has learned nothing yet takes each glimpse elsewhere, instead of all of them at the middle. The paper has no resting
    places. See ``spiral``.

    No randomness is drawn here: the first location and the noise of the others are arguments.

    Args:
        sensor: what a glimpse is.
        classes: number of classes.
        locator_hidden: units of a hidden ReLU layer in the location network; 0 for the paper's linear one.
        reinforce_core: let the gradient of the locations' log-probabilities reach the core and the glimpse
            network. The paper's formula for the policy does, its hybrid objective does not say; the peers with the
            best errors on MNIST do, others detach the state.
        spread: radius of the spiral, in units of the location; 0 for the paper's network.

    Example:
        >>> network = RecurrentAttentionNetwork(GlimpseSensor((1, 28, 28)), classes=10)
        >>> first, noise = torch.zeros(1, 5, 2), torch.zeros(5, 1, 5, 2)
        >>> rollout = network.rollout(torch.rand(5, 1, 28, 28), first, noise, std=0.1)
        >>> network.classifier(rollout.states[-1]).shape
        torch.Size([1, 5, 10])
    """

    def __init__(
        self,
        sensor: GlimpseSensor,
        classes: int,
        locator_hidden: int = 128,
        reinforce_core: bool = False,
        spread: float = 0.6,
    ):
        super().__init__()
        self.sensor = sensor
        self.reinforce_core = reinforce_core
        self.spread = spread
        self.what = nn.Linear(sensor.features, 128)
        self.where = nn.Linear(2, 128)
        self.what_to_glimpse = nn.Linear(128, 256)
        self.where_to_glimpse = nn.Linear(128, 256)
        self.glimpse_to_state = nn.Linear(256, 256)
        self.state_to_state = nn.Linear(256, 256)
        self.locator = mlp(256, locator_hidden, 2)
        self.classifier = nn.Linear(256, classes)
        # Made without random numbers, so that a seed gives the weights it gives without a probe; a linear softmax
        # model can start at 0, as nothing is symmetric in its inputs.
        self.probe = nn.utils.skip_init(nn.Linear, 256, classes)
        nn.init.zeros_(self.probe.weight)
        nn.init.zeros_(self.probe.bias)

    def rollout(
        self,
        images: Float[Tensor, "images channels height width"],
        first: Float[Tensor, "rollouts images 2"],
        noise: Float[Tensor, "moves rollouts images 2"],
        std: float,
    ) -> Rollout:
        """Walk over the pictures as the location network decides.

        Args:
            images: brightness in [0, 1].
            first: the first locations, ``l_1``.
            noise: standard normal; 0 for the mean policy. One glimpse more than ``len(noise)`` is taken, so that
                every location drawn is looked at, and none is given credit that was not.
            std: ``σ``, in units of the location.
        """
        windows = self.sensor.windows(images)
        location, state = first, None
        states, locations, means = [], [first], []
        for rest, noise_t in zip(self.resting_places(len(noise)), noise, strict=True):
            state = self.step(state, windows, location)
            mean = rest + self.locator(state if self.reinforce_core else state.detach())
            # Detached: the classifier must not pull the gaze along the pixels, only the reward may.
            location = (mean + std * noise_t).detach().to(mean.dtype)  # noise may be of more precision
            states.append(state)
            means.append(mean)
            locations.append(location)
        states.append(self.step(state, windows, location))
        return Rollout(
            torch.stack(states),
            torch.stack(locations),
            torch.stack(means) if means else noise.new_zeros(noise.shape),
        )

    def follow(
        self,
        images: Float[Tensor, "images channels height width"],
        locations: Float[Tensor, "glimpses rollouts images 2"],
    ) -> Rollout:
        """Walk over the pictures along given locations, without the location network."""
        windows = self.sensor.windows(images)
        state, states = None, []
        for location in locations:
            state = self.step(state, windows, location)
            states.append(state)
        return Rollout(torch.stack(states), locations, locations[:0])

    def logits(self, states: Float[Tensor, "glimpses *dims hidden"]) -> Float[Tensor, "glimpses *dims classes"]:
        """Logits of the classes after each glimpse: of the classifier after the last one, of the probe before.

        The classifier is trained on the last state alone and says nothing sensible of earlier ones. The probe is a
        linear read-out of these: Alain & Bengio, "Understanding intermediate layers using linear classifier probes",
        2016. Its gradient stops at the states.

        Example:
            >>> network = RecurrentAttentionNetwork(GlimpseSensor((1, 28, 28)), classes=10)
            >>> network.logits(torch.rand(6, 1, 5, 256)).shape
            torch.Size([6, 1, 5, 10])
        """
        return torch.cat([self.probe(states[:-1].detach()), self.classifier(states[-1:])])

    def resting_places(self, moves: int) -> Float[Tensor, "moves 2"]:
        """Where the gaze goes, glimpse by glimpse, if the location network says nothing."""
        return spiral(moves, self.spread).to(self.where.weight)

    def step(self, state: Tensor | None, windows: list[Tensor], location: Tensor) -> Tensor:
        """Take one glimpse: ``h_{t-1}`` to ``h_t``; the state before the first glimpse is none, and counts as 0."""
        location = location.clamp(-1, 1)  # as the sensor does; a stray sample must not swamp what is seen
        what = F.relu(self.what(self.sensor(windows, location).flatten(-4)))
        where = F.relu(self.where(location))
        glimpse = F.relu(self.what_to_glimpse(what) + self.where_to_glimpse(where))
        state_input = self.glimpse_to_state(glimpse)
        return F.relu(state_input if state is None else state_input + self.state_to_state(state))


def spiral(points: int, radius: float) -> Float[Tensor, "points 2"]:
    """Spread points evenly over a disc: ``r_k = radius · √((k + ½) / points)`` at angle ``k π (3 - √5)``, centred.

    Vogel, "A better way to construct the sunflower head", 1979. A single point lies in the middle.

    Example:
        >>> spiral(2, radius=0.6)
        tensor([[ 0.3416, -0.1755],
                [-0.3416,  0.1755]])
    """
    k = torch.arange(points)
    r, angle = radius * ((k + 0.5) / points).sqrt(), k * math.pi * (3 - math.sqrt(5))
    places = torch.stack([r * angle.cos(), r * angle.sin()], dim=-1)
    return places - places.mean(0)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    """Make a linear layer, or two with a ReLU between if ``hidden`` is not 0."""
    if not hidden:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
