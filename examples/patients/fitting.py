"""Black-box variational inference for the factor models, without Pyro."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from examples.patients.density import lab_log_density, local_terms, prior_log_density, sum_log_joint
from examples.patients.family import FactorFamily
from examples.patients.guide import Factors, Guide, factors_of
from examples.patients.labs import Labs
from zoo.gradients import LeaveOneOutBaseline, Reinforce

LAST_RATE = 0.01


@dataclass(frozen=True)
class Fitting:
    """Settings of Adam, whose learning rate decays to a hundredth along a cosine, and then stays constant.

    Example:
        >>> settings = Fitting(steps=100, learning_rate=0.2)
        >>> [round(settings.rate(step), 3) for step in (0, 50, 100, 300)]
        [0.2, 0.101, 0.002, 0.002]
    """

    steps: int
    learning_rate: float = 0.1
    particles: int = 16

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.particles < 2:
            raise ValueError(
                f"a fit needs at least 1 step, a positive learning rate and at least 2 particles, got {self.steps}, "
                f"{self.learning_rate} and {self.particles}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        fallen = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        return self.learning_rate * (LAST_RATE + (1 - LAST_RATE) * fallen)


def default_settings(family: FactorFamily, steps: int) -> Fitting:
    """Return settings that were selected by the ELBO on a part of the PBC training patients.

    Example:
        >>> default_settings(FactorFamily(series=True, positive=True), steps=100).learning_rate
        0.2
    """
    return Fitting(steps, learning_rate=0.2 if family.positive else 0.1)


class ElboAndLoss(NamedTuple):
    """Estimate of the ELBO, and a loss whose gradient estimates that of the negative ELBO."""

    bound: Float[Tensor, ""]
    """In nats, detached."""
    loss: Float[Tensor, ""]
    """Only its gradient has a meaning."""


def estimate_elbo(family: FactorFamily, guide: Guide, labs: Labs, particles: int) -> ElboAndLoss:
    """Return the Rao-Blackwellized estimate with leave-one-out baselines: equation 6 of Ranganath et al., 2014.

    The score of a variable is multiplied only by the terms of ``log p - log q`` that contain it. On the same samples
    the gradient equals that of ``BlackBoxELBO``, which finds these terms automatically; here they are written out, and
    computed for all visits of all patients at once.

    Args:
        family: factor model.
        guide: guide for these patients.
        labs: observed labs.
        particles: number of samples, at least 2.
    """
    factors_q = {"weights": guide.weights(), "offsets": guide.offsets(), "states": guide.states()}
    many = {name: factor.expand((particles, *factor.batch_shape)) for name, factor in factors_q.items()}
    sites = sample_factors(many)
    log_q = factors_of({name: factor.log_prob(sites[name]) for name, factor in many.items()})
    log_q = log_q._replace(states=log_q.states.where(labs.attended[..., None], 0.0))
    with torch.no_grad():
        drawn = factors_of(sites)
        per_lab = lab_log_density(family, labs, drawn)
        priors = {name: prior_log_density(name, family, labs, drawn) for name in Factors._fields}
        bound = sum_log_joint(priors, per_lab) - sum_log_joint(log_q._asdict(), torch.zeros_like(per_lab))
    reinforce = Reinforce(LeaveOneOutBaseline(dim=0), maximize=True)
    losses = [
        reinforce(score, local_terms(name, family, priors[name], per_lab) - score.detach()).loss.sum()
        for name, score in log_q._asdict().items()
    ]
    return ElboAndLoss(bound.mean(), torch.stack(losses).sum() / particles)


def finite_estimate(family: FactorFamily, guide: Guide, labs: Labs, particles: int, step: int) -> ElboAndLoss:
    """Return the estimate; raise ``ValueError`` if it is not finite."""
    try:
        found = estimate_elbo(family, guide, labs, particles)
        if found.bound.isfinite():
            return found
    except ValueError as error:  # of torch, which prints all that there is
        cause: Exception | None = error
    else:
        cause = None
    raise ValueError(f"the ELBO of {family.name} is not finite at step {step}; lower the learning rate") from cause


def sample_factors(factors_q: Mapping[str, Distribution]) -> dict[str, Tensor]:
    """Sample all variables: the only source of randomness."""
    with torch.no_grad():
        return {name: factor.sample() for name, factor in factors_q.items()}


def fit(
    family: FactorFamily,
    guide: Guide,
    labs: Labs,
    settings: Fitting,
    seed: int,
    watch: Callable[[int, float], bool] = lambda step, bound: False,
    forever: bool = False,
) -> list[float]:
    """Maximize the ELBO over the guide's parameters, and return its estimates in nats, one per step.

    The global random state is not used.

    Args:
        family: factor model.
        guide: guide for these patients; its buffers stay fixed.
        labs: observed labs.
        settings: steps and learning rate.
        seed: seed of all samples.
        watch: called after each step with its number and the ELBO; returning True ends the fit.
        forever: continue after the last step until ``watch`` ends the fit.

    Raises:
        ValueError: the ELBO is not finite.
    """
    optimizer = torch.optim.Adam([parameter for parameter in guide.parameters() if parameter.requires_grad])
    bounds: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while forever or len(bounds) < settings.steps:
            optimizer.param_groups[0]["lr"] = settings.rate(len(bounds))
            optimizer.zero_grad()
            bound, loss = finite_estimate(family, guide, labs, settings.particles, len(bounds) + 1)
            bounds.append(bound.item())
            loss.backward()
            optimizer.step()
            if watch(len(bounds), bounds[-1]):
                break
    return bounds
