from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal
from torchvision.transforms.functional import to_pil_image, to_tensor

from zoo.attention import RecurrentAttention


class PlainRetina:
    """Cut the patches out of a batch, one picture after the other."""

    def __init__(self, size: int):
        self.size = size

    def foveate(self, images: Tensor, location: Tensor) -> Tensor:
        """Patches of ``size`` pixels around a location from -1 to 1 for each picture."""
        height, width = images.shape[2:]
        span = torch.tensor([(height - self.size) / 2, (width - self.size) / 2])
        middle = torch.tensor([(height - 1) / 2, (width - 1) / 2])
        start = (middle + location.clamp(-1, 1) * span - (self.size - 1) / 2 + self.size).round().long()
        end = start + self.size
        padded = F.pad(images, (self.size, self.size, self.size, self.size))
        patches = []
        for i in range(len(images)):
            patches.append(padded[i, :, start[i, 0] : end[i, 0], start[i, 1] : end[i, 1]])
        return torch.stack(patches)


class PlainGlimpse(nn.Module):
    """Glimpse network: what is seen and where, together."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.retina = PlainRetina(size)
        self.what = nn.Linear(channels * size * size, 128)
        self.where = nn.Linear(2, 128)
        self.what_to_glimpse = nn.Linear(128, 256)
        self.where_to_glimpse = nn.Linear(128, 256)

    def forward(self, images: Tensor, location: Tensor) -> Tensor:
        patch = self.retina.foveate(images, location).flatten(1)
        what = F.relu(self.what(patch))
        where = F.relu(self.where(location.clamp(-1, 1)))
        return F.relu(self.what_to_glimpse(what) + self.where_to_glimpse(where))


class PlainCore(nn.Module):
    """Recurrent cell with ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.glimpse_to_state = nn.Linear(256, 256)
        self.state_to_state = nn.Linear(256, 256)

    def forward(self, glimpse: Tensor, state: Tensor | None) -> Tensor:
        if state is None:
            return F.relu(self.glimpse_to_state(glimpse))
        return F.relu(self.glimpse_to_state(glimpse) + self.state_to_state(state))


class PlainLocator(nn.Module):
    """Choose the next location; say how likely the choice was."""

    def __init__(self, std: float):
        super().__init__()
        self.std = std
        self.hidden = nn.Linear(256, 128)
        self.mean = nn.Linear(128, 2)

    def forward(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(F.relu(self.hidden(state)))
        location = (mean + self.std * noise).detach()
        log_prob = Normal(mean, self.std).log_prob(location).sum(1)
        return location, log_prob


class PlainWalk(NamedTuple):
    """What one walk over a batch leaves for the loss; lists over the moves."""

    logits: Tensor
    log_probs: list[Tensor]
    baselines: list[Tensor]


class PlainRAM(nn.Module):
    """RAM as it is commonly written: a module and a call for each part of each step, a slice for each picture.

    The same layers, losses and random numbers as ``RecurrentAttention`` with its paper's estimator, one walk per
    picture, one scale and the default span, with REINFORCE into the core.
    """

    def __init__(self, channels: int, size: int, classes: int, std: float, policy_weight: float):
        super().__init__()
        self.policy_weight = policy_weight
        self.glimpse = PlainGlimpse(size, channels)
        self.core = PlainCore()
        self.locator = PlainLocator(std)
        self.baseline = nn.Linear(256, 1)
        self.classifier = nn.Linear(256, classes)

    def forward(self, images: Tensor, location: Tensor, noise: Sequence[Tensor]) -> PlainWalk:
        state, log_probs, baselines = None, [], []
        for noise_t in noise:
            state = self.core(self.glimpse(images, location), state)
            location, log_prob = self.locator(state, noise_t)
            baselines.append(self.baseline(state.detach()).squeeze(1))
            log_probs.append(log_prob)
        state = self.core(self.glimpse(images, location), state)
        return PlainWalk(self.classifier(state), log_probs, baselines)

    def loss(self, images: Tensor, labels: Tensor, first: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Loss of a batch of pictures as bytes."""
        images = torch.stack([to_tensor(to_pil_image(image)) for image in images])  # as torchvision's MNIST does
        walk = self(images, first, noise)
        reward = (walk.logits.argmax(1) == labels).float()
        policy, regression = [], []
        for log_prob, baseline in zip(walk.log_probs, walk.baselines, strict=True):
            policy.append(-log_prob * (reward - baseline.detach()))
            regression.append(F.mse_loss(baseline, reward))
        return (
            F.cross_entropy(walk.logits, labels)
            + self.policy_weight * torch.stack(policy).sum(0).mean()
            + torch.stack(regression).mean()
        )

    def copy_weights(self, model: RecurrentAttention) -> None:
        """Start from the weights of ours."""
        network = model.network
        hidden, _, mean = network.locator
        pairs = {
            self.glimpse.what: network.what,
            self.glimpse.where: network.where,
            self.glimpse.what_to_glimpse: network.what_to_glimpse,
            self.glimpse.where_to_glimpse: network.where_to_glimpse,
            self.core.glimpse_to_state: network.glimpse_to_state,
            self.core.state_to_state: network.state_to_state,
            self.locator.hidden: hidden,
            self.locator.mean: mean,
            self.classifier: network.classifier,
            self.baseline: model.reinforce.baseline.net,
        }
        for mine, theirs in pairs.items():
            mine.load_state_dict(theirs.state_dict())
