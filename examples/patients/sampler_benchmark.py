"""Predictive likelihood of held-out labs over time: variational inference, Metropolis within Gibbs, NUTS."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.patients.chain import State, run_chain
from examples.patients.chains import constrained, gibbs_blocks, initial_state, potential, unconstrained
from examples.patients.density import lab_log_density
from examples.patients.family import FactorFamily
from examples.patients.fitting import default_settings, fit
from examples.patients.gibbs import metropolis_within_gibbs
from examples.patients.guide import Factors, Guide, factors_of
from examples.patients.labs import Labs, LabSplit
from examples.patients.nuts import nuts
from examples.patients.prediction import predictive_log_likelihood
from zoo.inference._mean_field import sample_guide

STEPS = 2700
DRAWS = 200
SPACING = 1.2  # ratio of the times of two evaluations
NO_LIMIT = 10**9


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of the chains."""

    gibbs_warm_up: int = 1000
    """Sweeps."""
    gibbs_thin: int = 10
    nuts_warm_up: int = 200
    """Trajectories, each of at most ``2 ** nuts_depth`` gradients, so that the warm-up ends in time."""
    nuts_depth: int = 7


SAMPLER_SETTINGS = SamplerSettings()


class Curve(NamedTuple):
    """Predictive log-likelihood of held-out labs against time."""

    seconds: list[float]
    """Wall-clock time, without that of the evaluations."""
    per_lab: list[float]
    """Predictive log-likelihood per held-out lab, in nats."""
    warm_up: float
    """Seconds until which a chain adapted; 0 if there is no such time."""
    steps: int
    """Number of optimizer steps, sweeps or trajectories."""


def all_patients(split: LabSplit) -> Labs:
    """Return the training patients with all labs, followed by the test patients with their shown labs."""
    return split.train.concatenate(split.shown)


def select_test_patients(split: LabSplit, factors: Factors) -> Factors:
    """Return the states of the test patients."""
    return factors.of_patients(slice(len(split.train.values), None))


def run_vi(family: FactorFamily, split: LabSplit, seconds: float, seed: int) -> Curve:
    """Fit a guide for all patients, and evaluate predictions of 200 samples at increasing intervals.

    After the last step the fit continues with the last learning rate.
    """
    labs = all_patients(split)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guide = Guide(family, labs)
    stamps: list[float] = []
    values: list[float] = []
    looked, began = 0.0, perf_counter()

    def watch(step: int, bound: float) -> bool:
        nonlocal looked
        now = perf_counter() - began - looked
        over = now >= seconds
        if not stamps or over or now >= SPACING * stamps[-1]:
            draws = select_test_patients(split, factors_of(sample_guide(guide, (labs,), DRAWS, seed)))
            values.append(predictive_log_likelihood(family, split.held_out, draws).per_lab.item())
            stamps.append(now)
            looked = perf_counter() - began - now
        return over

    steps = fit(family, guide, labs, default_settings(family, STEPS), seed, watch, forever=True)
    return Curve(stamps, values, 0.0, len(steps))


def run_gibbs(family: FactorFamily, split: LabSplit, seconds: float, seed: int) -> Curve:
    """Run Metropolis within Gibbs, and predict with every tenth state of the later half of its states so far."""
    labs = all_patients(split)
    start = initial_state(family, labs, seed)
    chain = metropolis_within_gibbs(start._asdict(), gibbs_blocks(family, labs), SAMPLER_SETTINGS.gibbs_warm_up, seed)
    kept = run_chain(predictive_part(split, chain), NO_LIMIT, SAMPLER_SETTINGS.gibbs_thin, seconds)
    states = (Factors(*state) for state in zip(*Factors(**kept.draws), strict=True))
    warm_up = SAMPLER_SETTINGS.gibbs_warm_up // SAMPLER_SETTINGS.gibbs_thin
    return make_curve(kept.seconds.tolist(), states, family, split, warm_up, SAMPLER_SETTINGS.gibbs_thin)


def predictive_part(split: LabSplit, chain: Iterable[State]) -> Iterator[State]:
    """Yield copies of the parts of each state that predictions need, so that the rest is freed."""
    for state in chain:
        part = select_test_patients(split, Factors(**state))
        yield {name: value.clone() for name, value in part._asdict().items()}


def run_nuts(family: FactorFamily, split: LabSplit, seconds: float, seed: int) -> Curve:
    """Run NUTS, and predict with the later half of its states so far."""
    labs = all_patients(split)
    start = unconstrained(family, labs, initial_state(family, labs, seed))
    chain = nuts(
        potential(family, labs),
        start,
        SAMPLER_SETTINGS.nuts_warm_up,
        NO_LIMIT,
        seed,
        seconds,
        SAMPLER_SETTINGS.nuts_depth,
    )
    draws = ({name: value[i] for name, value in chain.draws.items()} for i in range(len(chain.seconds)))
    states = (select_test_patients(split, constrained(family, labs, draw)) for draw in draws)
    return make_curve(chain.seconds.tolist(), states, family, split, SAMPLER_SETTINGS.nuts_warm_up, 1)


def make_curve(
    times: list[float], states: Iterable[Factors], family: FactorFamily, split: LabSplit, warm_up: int, thin: int
) -> Curve:
    """Return the curve of a chain, evaluated at increasing intervals.

    Args:
        times: time of each state in seconds.
        states: states of the chain, restricted to the test patients.
        family: factor model.
        split: training and test patients.
        warm_up: number of warm-up states.
        thin: steps between states.
    """
    held_out = split.held_out
    density = torch.stack([lab_log_density(family, held_out, state)[held_out.observed] for state in states])
    looks = spaced_indices(times)
    adapted = times[min(warm_up, len(times)) - 1] if warm_up else 0.0
    values = [second_half_log_density(density[: look + 1]).item() for look in looks]
    return Curve([times[look] for look in looks], values, adapted, thin * len(times))


def spaced_indices(times: list[float]) -> list[int]:
    """Return the indices of the first and last time, and of those in between that are a fifth later than the previous.

    Example:
        >>> spaced_indices([1.0, 1.1, 1.3, 1.5, 2.0])
        [0, 2, 4]
    """
    chosen = [0]
    for i, time in enumerate(times):
        if time >= SPACING * times[chosen[-1]] or (i == len(times) - 1 and i > chosen[-1]):
            chosen.append(i)
    return chosen


def second_half_log_density(density: Float[Tensor, "draws labs"]) -> Float[Tensor, ""]:
    """Return the log of the mean density over the later half of the states, averaged over the labs.

    Example:
        >>> second_half_log_density(torch.tensor([[-90.0], [-2.0], [-2.0]]))
        tensor(-2.)
    """
    later = density[len(density) // 2 :]
    return (later.logsumexp(0) - math.log(len(later))).mean()


Method = Callable[[FactorFamily, LabSplit, float, int], Curve]

METHODS: dict[str, Method] = {
    "black-box variational inference": run_vi,
    "Metropolis within Gibbs": run_gibbs,
    "NUTS": run_nuts,
}
