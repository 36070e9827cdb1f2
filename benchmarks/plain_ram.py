from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal
from torchvision.transforms.functional import to_pil_image, to_tensor

from zoo.attention import RecurrentAttention


class PlainGlimpseSensor:
    """Extracts the patches of a batch, one image after the other."""

    def __init__(self, patch_size: int):
        self.patch_size = patch_size

    def foveate(self, images: Tensor, location: Tensor) -> Tensor:
        """Patches of ``patch_size`` pixels around a location from -1 to 1 for each image."""
        height, width = images.shape[2:]
        location_range = torch.tensor([(height - self.patch_size) / 2, (width - self.patch_size) / 2])
        center = torch.tensor([(height - 1) / 2, (width - 1) / 2])
        start = (
            (center + location.clamp(-1, 1) * location_range - (self.patch_size - 1) / 2 + self.patch_size)
            .round()
            .long()
        )
        end = start + self.patch_size
        padded = F.pad(images, (self.patch_size, self.patch_size, self.patch_size, self.patch_size))
        patches = []
        for i in range(len(images)):
            patches.append(padded[i, :, start[i, 0] : end[i, 0], start[i, 1] : end[i, 1]])
        return torch.stack(patches)


class PlainGlimpseNetwork(nn.Module):
    """Glimpse network: features of the patch and of its location."""

    def __init__(self, patch_size: int, channels: int):
        super().__init__()
        self.sensor = PlainGlimpseSensor(patch_size)
        self.image_encoder = nn.Linear(channels * patch_size * patch_size, 128)
        self.location_encoder = nn.Linear(2, 128)
        self.image_to_glimpse = nn.Linear(128, 256)
        self.location_to_glimpse = nn.Linear(128, 256)

    def forward(self, images: Tensor, location: Tensor) -> Tensor:
        patch = self.sensor.foveate(images, location).flatten(1)
        image_features = F.relu(self.image_encoder(patch))
        location_features = F.relu(self.location_encoder(location.clamp(-1, 1)))
        return F.relu(self.image_to_glimpse(image_features) + self.location_to_glimpse(location_features))


class PlainCore(nn.Module):
    """Recurrent cell with ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.glimpse_to_hidden = nn.Linear(256, 256)
        self.hidden_to_hidden = nn.Linear(256, 256)

    def forward(self, glimpse: Tensor, state: Tensor | None) -> Tensor:
        if state is None:
            return F.relu(self.glimpse_to_hidden(glimpse))
        return F.relu(self.glimpse_to_hidden(glimpse) + self.hidden_to_hidden(state))


class PlainLocationNetwork(nn.Module):
    """Samples the next location, and returns its log-probability."""

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


class PlainTrajectory(NamedTuple):
    """Quantities of one trajectory that the loss needs; lists over the steps."""

    logits: Tensor
    log_probs: list[Tensor]
    baselines: list[Tensor]


class PlainRAM(nn.Module):
    """RAM as it is commonly implemented: a module and a call for each part of each step, a slice for each image.

    The same layers, losses and random numbers as ``RecurrentAttention`` with the paper's estimator, one trajectory per
    image, one scale, the default location range and ``reinforce_core=True``.
    """

    def __init__(self, channels: int, patch_size: int, num_classes: int, std: float, policy_weight: float):
        super().__init__()
        self.policy_weight = policy_weight
        self.glimpse = PlainGlimpseNetwork(patch_size, channels)
        self.core = PlainCore()
        self.location_net = PlainLocationNetwork(std)
        self.baseline = nn.Linear(256, 1)
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, images: Tensor, location: Tensor, noise: Sequence[Tensor]) -> PlainTrajectory:
        state, log_probs, baselines = None, [], []
        for noise_t in noise:
            state = self.core(self.glimpse(images, location), state)
            location, log_prob = self.location_net(state, noise_t)
            baselines.append(self.baseline(state.detach()).squeeze(1))
            log_probs.append(log_prob)
        state = self.core(self.glimpse(images, location), state)
        return PlainTrajectory(self.classifier(state), log_probs, baselines)

    def loss(self, images: Tensor, labels: Tensor, first: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Loss of a batch of uint8 images."""
        images = torch.stack([to_tensor(to_pil_image(image)) for image in images])  # as torchvision's MNIST does
        trajectory = self(images, first, noise)
        reward = (trajectory.logits.argmax(1) == labels).float()
        policy, regression = [], []
        for log_prob, baseline in zip(trajectory.log_probs, trajectory.baselines, strict=True):
            policy.append(-log_prob * (reward - baseline.detach()))
            regression.append(F.mse_loss(baseline, reward))
        return (
            F.cross_entropy(trajectory.logits, labels)
            + self.policy_weight * torch.stack(policy).sum(0).mean()
            + torch.stack(regression).mean()
        )

    def copy_weights(self, model: RecurrentAttention) -> None:
        """Copy the weights of ``model``."""
        network = model.network
        hidden, _, mean = network.location_net
        pairs = {
            self.glimpse.image_encoder: network.image_encoder,
            self.glimpse.location_encoder: network.location_encoder,
            self.glimpse.image_to_glimpse: network.image_to_glimpse,
            self.glimpse.location_to_glimpse: network.location_to_glimpse,
            self.core.glimpse_to_hidden: network.glimpse_to_hidden,
            self.core.hidden_to_hidden: network.hidden_to_hidden,
            self.location_net.hidden: hidden,
            self.location_net.mean: mean,
            self.classifier: network.classifier,
            self.baseline: model.reinforce.baseline.net,
        }
        for plain, ours in pairs.items():
            plain.load_state_dict(ours.state_dict())
