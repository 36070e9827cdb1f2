from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients.reinforce import ReinforceOutput

Sampler = Callable[[int, Tensor], Tensor]
"""``sampler(l, logits)`` returns the binary units of layer ``l``, ``(particles, batch, units)``."""


class Evaluation(NamedTuple):
    """Log-probabilities of samples of all latent layers, in nats, lowest layer first.

    Example:
        >>> from zoo.inference.sbn import BeliefNetwork, ConditionedNetwork
        >>> model = ConditionedNetwork(BeliefNetwork(pixels=6, layers=[3, 2]), torch.ones(5, 6))
        >>> found = model.evaluate(bernoulli_sampler(model.noise(num_particles=4)))
        >>> len(found.log_q), len(found.log_joint), found.log_q[0].shape
        (2, 3, torch.Size([4, 5]))
    """

    inputs: list[Float[Tensor, "... batch _"]]
    """Input of each layer of the inference network, the context of its baseline."""
    log_q: list[Float[Tensor, "particles batch"]]
    """``log q(h_l | h_{l-1})`` with ``h_0 = x``."""
    log_joint: list[Float[Tensor, "particles batch"]]
    """``log p(x | h_1)``, …, ``log p(h_L)``: one more than there are layers."""


@runtime_checkable
class LatentModel(Protocol):
    """Layers of binary latent variables with an inference network, for one batch of data.

    Example:
        >>> from zoo.inference.sbn import BeliefNetwork, ConditionedNetwork
        >>> isinstance(ConditionedNetwork(BeliefNetwork(pixels=6, layers=[3]), torch.ones(5, 6)), LatentModel)
        True
    """

    @property
    def units(self) -> Sequence[int]:
        """Number of units per layer, lowest first."""

    def noise(self, num_particles: int) -> list[Float[Tensor, "particles batch _"]]:
        """Sample uniform noise for each unit."""

    def evaluate(self, sampler: Sampler) -> Evaluation:
        """Return the log-probabilities of the units that ``sampler`` returns for the logits of each layer."""


class GradientEstimate(NamedTuple):
    """Losses whose gradient estimates that of a negative bound.

    Example:
        >>> zero = torch.zeros(())
        >>> GradientEstimate(zero, zero, zero, bound=torch.tensor([-90.0]), reinforce=[]).bound
        tensor([-90.])
    """

    pathwise: Float[Tensor, ""]
    """Pathwise term, mean over the batch."""
    score: Float[Tensor, ""]
    """Score-function surrogate, mean over the batch and summed over the layers."""
    baseline: Float[Tensor, ""]
    """Losses of the baselines, summed over the layers; train only the baselines."""
    bound: Float[Tensor, " batch"]
    """In nats, detached."""
    reinforce: list[ReinforceOutput]
    """Outputs of the score-function estimators, for logging."""


class GradientEstimator(nn.Module, ABC):
    """Base class for estimators of the gradient of a bound on the log-evidence of a ``LatentModel``.

    ``evaluate`` may be called several times, on samples of the estimator's choice: with antithetic noise as in DisARM,
    or relaxed as in REBAR. To add an estimator, register a subclass in ``ESTIMATORS`` and write
    ``configs/estimator/NAME.yaml``; no model changes.

    Args:
        units: number of units per layer of the model.
        make_net: returns the network of a learned baseline for a layer, a map from the layer's input to ``(..., 1)``.
        options: ``baseline``, ``decay``, ``scale`` and ``local_signals`` of a configuration.

    Example:
        >>> class NoGradient(GradientEstimator):
        ...     def __init__(self, units, make_net, **options):
        ...         super().__init__()
        ...     def forward(self, model, num_particles):
        ...         sampled = model.evaluate(bernoulli_sampler(model.noise(num_particles)))
        ...         bound, zero = (sum(sampled.log_joint) - sum(sampled.log_q)).mean(0), torch.zeros(())
        ...         return GradientEstimate(zero, zero, zero, bound.detach(), [])
        >>> NoGradient([2], None).min_particles
        1
    """

    needs: ClassVar[Literal["signals", "log_weights", "evaluations"]] = "evaluations"
    """What a model must offer: learning signals, log-weights of particles, or the evaluation of chosen samples."""
    bound: ClassVar[Literal["elbo", "iwae"]] = "elbo"
    """Bound whose gradient is estimated."""
    takes_baseline: ClassVar[bool] = False
    """Whether it has an option ``baseline``."""
    has_local_signals: ClassVar[bool] = False
    """Whether it supports learning signals of single layers."""

    @property
    def min_particles(self) -> int:
        """Smallest number of particles."""
        return 1

    @abstractmethod
    def forward(self, model: LatentModel, num_particles: int) -> GradientEstimate:
        """Return losses whose gradient estimates that of the negative bound."""


def bernoulli_sampler(noise: Sequence[Float[Tensor, "*dims _"]]) -> Sampler:
    """Return a sampler that sets a unit to 1 where its uniform noise is below its probability.

    Example:
        >>> bernoulli_sampler([torch.tensor([0.2, 0.7])])(0, torch.zeros(2))
        tensor([1., 0.])
    """
    return lambda layer, logits: torch.lt(
        noise[layer], logits.detach().to(noise[layer].dtype).sigmoid(), out=logits.new_empty(0)
    )


def sum_terms(terms: Sequence[Float[Tensor, "particles batch"]]) -> Float[Tensor, "particles batch"]:
    """Return the sum of the terms.

    Example:
        >>> sum_terms([torch.ones(1, 2), torch.ones(1, 2)])
        tensor([[2., 2.]])
    """
    return torch.stack(list(terms)).sum(0)
