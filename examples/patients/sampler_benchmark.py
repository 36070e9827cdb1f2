"""Held-out predictive likelihood against time: variational inference, Metropolis within Gibbs, NUTS."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.patients.chain import State, keep
from examples.patients.chains import blocks, constrained, potential, start_of_chain, unconstrained
from examples.patients.density import lab_log_density
from examples.patients.family import FactorFamily
from examples.patients.fitting import fit, usual
from examples.patients.gibbs import metropolis_within_gibbs
from examples.patients.guide import Factors, Guide, factors_of
from examples.patients.labs import Labs, LabSplit
from examples.patients.nuts import nuts
from examples.patients.prediction import predictive_log_likelihood
from zoo.inference.mean_field import sample_guide

STEPS = 2700
DRAWS = 200
SPACING = 1.2  # one look at the guide or the chain is so many times later than the one before
ENDLESS = 10**9


@dataclass(frozen=True)
class Sampling:
    """How the chains run."""

    gibbs_warm_up: int = 1000
    """Sweeps."""
    gibbs_thin: int = 10
    nuts_warm_up: int = 200
    """Trajectories, each of at most ``2 ** nuts_depth`` gradients, so that the warm-up ends in time."""
    nuts_depth: int = 7


SAMPLING = Sampling()


class Curve(NamedTuple):
    """How well held-out labs were predicted as time went by."""

    seconds: list[float]
    """Wall clock, without the time it took to look."""
    per_lab: list[float]
    """Predictive log-likelihood per held-out lab, in nats."""
    warm_up: float
    """Seconds until which a chain adapted; 0 if there is no such time."""
    steps: int
    """Of the optimiser, or states of the chain: sweeps, or trajectories."""


def everybody(split: LabSplit) -> Labs:
    """Training patients with all their labs, and behind them the test patients with those shown."""
    return split.train.followed_by(split.shown)


def of_test_patients(split: LabSplit, factors: Factors) -> Factors:
    """Keep the states of the test patients."""
    return factors.of_patients(slice(len(split.train.values), None))


def variational(family: FactorFamily, split: LabSplit, seconds: float, seed: int) -> Curve:
    """Fit a guide for all patients at once, and predict by 200 of its draws now and then.

    After its last step the fit goes on with the last learning rate.
    """
    labs = everybody(split)
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
            draws = of_test_patients(split, factors_of(sample_guide(guide, (labs,), DRAWS, seed)))
            values.append(predictive_log_likelihood(family, split.held_out, draws).per_lab.item())
            stamps.append(now)
            looked = perf_counter() - began - now
        return over

    steps = fit(family, guide, labs, usual(family, STEPS), seed, watch, forever=True)
    return Curve(stamps, values, 0.0, len(steps))


def gibbs(family: FactorFamily, split: LabSplit, seconds: float, seed: int) -> Curve:
    """Run Metropolis within Gibbs, and predict by the later half of its states so far, every tenth of them."""
    labs = everybody(split)
    start = start_of_chain(family, labs, seed)
    chain = metropolis_within_gibbs(start._asdict(), blocks(family, labs), SAMPLING.gibbs_warm_up, seed)
    kept = keep(predictive_part(split, chain), ENDLESS, SAMPLING.gibbs_thin, seconds)
    states = (Factors(*state) for state in zip(*Factors(**kept.draws), strict=True))
    warm_up = SAMPLING.gibbs_warm_up // SAMPLING.gibbs_thin
    return curve_of(kept.seconds.tolist(), states, family, split, warm_up, SAMPLING.gibbs_thin)


def predictive_part(split: LabSplit, chain: Iterable[State]) -> Iterator[State]:
    """Copy what predictions need of each state, so that the rest is freed."""
    for state in chain:
        part = of_test_patients(split, Factors(**state))
        yield {name: value.clone() for name, value in part._asdict().items()}


def hamiltonian(family: FactorFamily, split: LabSplit, seconds: float, seed: int) -> Curve:
    """Run NUTS, and predict by the later half of its states so far."""
    labs = everybody(split)
    start = unconstrained(family, labs, start_of_chain(family, labs, seed))
    chain = nuts(potential(family, labs), start, SAMPLING.nuts_warm_up, ENDLESS, seed, seconds, SAMPLING.nuts_depth)
    draws = ({name: value[i] for name, value in chain.draws.items()} for i in range(len(chain.seconds)))
    states = (of_test_patients(split, constrained(family, labs, draw)) for draw in draws)
    return curve_of(chain.seconds.tolist(), states, family, split, SAMPLING.nuts_warm_up, 1)


def curve_of(
    times: list[float], states: Iterable[Factors], family: FactorFamily, split: LabSplit, warm_up: int, thin: int
) -> Curve:
    """Look at a chain now and then.

    Args:
        times: when each state was reached, in seconds.
        states: of the chain, one after the other, those of the test patients.
        family: the model.
        split: for what is held out.
        warm_up: how many of the states adapt.
        thin: steps between states.
    """
    held_out = split.held_out
    density = torch.stack([lab_log_density(family, held_out, state)[held_out.observed] for state in states])
    looks = spaced(times)
    adapted = times[min(warm_up, len(times)) - 1] if warm_up else 0.0
    values = [later_half(density[: look + 1]).item() for look in looks]
    return Curve([times[look] for look in looks], values, adapted, thin * len(times))


def spaced(times: list[float]) -> list[int]:
    """Choose the first, the last, and between them each that is a fifth later than the one before.

    Example:
        >>> spaced([1.0, 1.1, 1.3, 1.5, 2.0])
        [0, 2, 4]
    """
    chosen = [0]
    for i, time in enumerate(times):
        if time >= SPACING * times[chosen[-1]] or (i == len(times) - 1 and i > chosen[-1]):
            chosen.append(i)
    return chosen


def later_half(density: Float[Tensor, "draws labs"]) -> Float[Tensor, ""]:
    """Log of the mean density over the later half of the draws, averaged over the labs.

    Example:
        >>> later_half(torch.tensor([[-90.0], [-2.0], [-2.0]]))
        tensor(-2.)
    """
    later = density[len(density) // 2 :]
    return (later.logsumexp(0) - math.log(len(later))).mean()


Method = Callable[[FactorFamily, LabSplit, float, int], Curve]

METHODS: dict[str, Method] = {
    "black-box variational inference": variational,
    "Metropolis within Gibbs": gibbs,
    "NUTS": hamiltonian,
}
