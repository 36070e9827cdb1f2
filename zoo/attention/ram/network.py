from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.attention.ram._spiral import spiral
from zoo.attention.ram.glimpse import GlimpseSensor

HIDDEN_SIZE = 256  # of the core


class Trajectory(NamedTuple):
    """Locations of the glimpses at a batch of images, and the hidden states after them.

    Example:
        >>> network = RecurrentAttentionNetwork(GlimpseSensor((1, 28, 28)), num_classes=10)
        >>> images, locations = torch.rand(5, 1, 28, 28), torch.zeros(6, 1, 5, 2)  # six glimpses at the center
        >>> network.trajectory_at(images, locations).states.shape
        torch.Size([6, 1, 5, 256])
    """

    states: Float[Tensor, "glimpses samples images hidden"]
    """``h_t``, after each glimpse."""
    locations: Float[Tensor, "glimpses samples images 2"]
    """``l_t`` of each glimpse: raw samples, detached."""
    means: Float[Tensor, "steps samples images 2"]
    """``μ(h_t)``, of all locations but the first; ``steps = glimpses - 1``, or 0 if the locations were given."""


class RecurrentAttentionNetwork(nn.Module):
    """Networks of RAM: glimpse network, core, location network and classifier.

    ``g_t = f_g(x, l_t)``, ``h_t = f_h(h_{t-1}, g_t)``, ``l_{t+1} ~ N(μ(h_t), σ²)``, class from the last ``h``: Mnih,
    Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014. All layers have the paper's sizes and
    ReLUs, except that the location network has a hidden layer (``location_hidden``).

    The location network predicts an offset from a fixed location, ``μ(h_t) = spiral_t + f_l(h_t)``, so that the
    glimpses of an untrained policy are spread over the image instead of all near its center. The fixed locations are
    those of Vogel, "A better way to construct the sunflower head", 1979. The paper has no offsets
    (``spiral_radius=0``).

    No random numbers are drawn here: the first location and the noise of the others are arguments.

    Args:
        sensor: glimpse sensor.
        num_classes: number of classes.
        location_hidden: units of a hidden ReLU layer in the location network; 0 for the paper's linear one.
        reinforce_core: whether the policy loss also trains core and glimpse network, as in the paper's formula for the
            policy. The paper's hybrid objective does not specify it.
        spiral_radius: radius of the fixed locations, in units of the location.

    Example:
        >>> network = RecurrentAttentionNetwork(GlimpseSensor((1, 28, 28)), num_classes=10)
        >>> first, noise = torch.zeros(1, 5, 2), torch.zeros(5, 1, 5, 2)
        >>> trajectory = network.sample_trajectory(torch.rand(5, 1, 28, 28), first, noise, std=0.1)
        >>> network.classifier(trajectory.states[-1]).shape
        torch.Size([1, 5, 10])
    """

    def __init__(
        self,
        sensor: GlimpseSensor,
        num_classes: int,
        location_hidden: int = 128,
        reinforce_core: bool = False,
        spiral_radius: float = 0.6,
    ):
        super().__init__()
        self.sensor = sensor
        self.reinforce_core = reinforce_core
        self.spiral_radius = spiral_radius
        self.image_encoder = nn.Linear(sensor.num_features, 128)
        self.location_encoder = nn.Linear(2, 128)
        self.image_to_glimpse = nn.Linear(128, HIDDEN_SIZE)
        self.location_to_glimpse = nn.Linear(128, HIDDEN_SIZE)
        self.glimpse_to_hidden = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.hidden_to_hidden = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.location_net = (
            nn.Sequential(nn.Linear(HIDDEN_SIZE, location_hidden), nn.ReLU(), nn.Linear(location_hidden, 2))
            if location_hidden
            else nn.Linear(HIDDEN_SIZE, 2)
        )
        self.classifier = nn.Linear(HIDDEN_SIZE, num_classes)
        # Initialized without random numbers, so that a seed yields the same weights as without a probe. A linear
        # softmax model can start at 0, as its inputs break the symmetry.
        self.probe = nn.utils.skip_init(nn.Linear, HIDDEN_SIZE, num_classes)
        nn.init.zeros_(self.probe.weight)
        nn.init.zeros_(self.probe.bias)

    def sample_trajectory(
        self,
        images: Float[Tensor, "images channels height width"],
        first: Float[Tensor, "samples images 2"],
        noise: Float[Tensor, "steps samples images 2"],
        std: float,
    ) -> Trajectory:
        """Return a trajectory whose locations after the first are sampled from the location network's policy.

        ``noise`` is standard normal, or 0 for the mean policy; ``std`` is ``σ``, in units of the location. There are
        ``len(noise) + 1`` glimpses, one at each location.
        """
        patches = self.sensor.patches(images)
        location, state = first, None
        states, locations, means = [], [first], []
        for fixed_t, noise_t in zip(self.fixed_locations(len(noise)), noise, strict=True):
            state = self.step(state, patches, location)
            mean = fixed_t + self.location_net(state if self.reinforce_core else state.detach())
            # Detached: the classification loss must not reach the policy through the pixels, only the reward may.
            location = (mean + std * noise_t).detach().to(mean.dtype)  # the noise may have higher precision
            states.append(state)
            means.append(mean)
            locations.append(location)
        states.append(self.step(state, patches, location))
        stacked_means = torch.stack(means) if means else noise.new_zeros(noise.shape)
        return Trajectory(torch.stack(states), torch.stack(locations), stacked_means)

    def trajectory_at(
        self,
        images: Float[Tensor, "images channels height width"],
        locations: Float[Tensor, "glimpses samples images 2"],
    ) -> Trajectory:
        """Return the trajectory at given locations, without the location network."""
        patches = self.sensor.patches(images)
        state, states = None, []
        for location in locations:
            state = self.step(state, patches, location)
            states.append(state)
        return Trajectory(torch.stack(states), locations, locations[:0])

    def logits(self, states: Float[Tensor, "glimpses *dims hidden"]) -> Float[Tensor, "glimpses *dims classes"]:
        """Return class logits after each glimpse: the classifier's after the last one, the probe's before.

        The classifier is trained on the last state only. The probe is a linear read-out of the earlier ones: Alain &
        Bengio, "Understanding intermediate layers using linear classifier probes", 2016. Its gradient stops at the
        states.
        """
        return torch.cat([self.probe(states[:-1].detach()), self.classifier(states[-1:])])

    def fixed_locations(self, steps: int) -> Float[Tensor, "steps 2"]:
        """Return the locations to which the location network's outputs are added, one for each step."""
        return spiral(steps, self.spiral_radius).to(self.location_encoder.weight)

    def step(self, state: Tensor | None, patches: list[Tensor], location: Tensor) -> Tensor:
        """Return ``h_t``, the state after a glimpse at ``location``; ``h_0``, written as None, is 0."""
        location = location.clamp(-1, 1)  # as in the sensor; an outlier must not dominate the glimpse
        image_features = F.relu(self.image_encoder(self.sensor(patches, location).flatten(-4)))
        location_features = F.relu(self.location_encoder(location))
        glimpse = F.relu(self.image_to_glimpse(image_features) + self.location_to_glimpse(location_features))
        core_input = self.glimpse_to_hidden(glimpse)
        return F.relu(core_input if state is None else core_input + self.hidden_to_hidden(state))
