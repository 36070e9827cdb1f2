import numpy as np
import torch
from torch import Tensor

from examples.patients.family import FLOOR, FactorFamily
from examples.patients.guide import Factors
from examples.patients.labs import Labs

TINY = float(np.finfo(np.float32).tiny)


def simulate(
    family: FactorFamily, patients: int, kinds: int, seed: int, visits: float = 6.0, share: float = 0.8
) -> tuple[Labs, Factors]:
    """Simulate patients from a factor model, with a Poisson number of visits (at least one) and missing labs.

    Args:
        family: model and scales.
        patients: number of patients.
        kinds: number of labs.
        seed: seed of all samples; the global random state is not used.
        visits: mean number of visits.
        share: probability that a lab is observed at a visit.

    Returns:
        The labs, and their weights, offsets and states.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> labs, truth = simulate(FactorFamily(series=True, positive=False), patients=3, kinds=7, seed=0)
        >>> labs.values.shape[2], truth.weights.shape
        (7, torch.Size([5, 7]))
    """
    if min(patients, kinds) < 1 or visits < 1 or not 0 < share <= 1:
        raise ValueError(
            "simulated patients need at least 1 patient, lab and mean visit and a share of labs in (0, 1], got "
            f"{patients}, {kinds}, {visits} and {share}"
        )
    noise = np.random.default_rng(seed)
    lengths = 1 + noise.poisson(visits - 1, patients)
    attended = np.arange(lengths.max()) < lengths[:, None]
    weights, offsets = draw_globals(family, kinds, noise)
    states = draw_states(family, attended.shape, noise)
    expected = states @ weights + offsets
    values = draw_gamma_e(expected, family.lab_sd, noise) if family.positive else noise.normal(expected, family.lab_sd)
    observed = attended[..., None] & (noise.random(values.shape) < share)
    names = tuple(f"lab_{kind}" for kind in range(kinds))
    labs = Labs(to_default_dtype(np.where(observed, values, 1)), torch.tensor(observed), torch.tensor(attended), names)
    return labs, Factors(to_default_dtype(weights), to_default_dtype(offsets), to_default_dtype(states))


def draw_globals(family: FactorFamily, kinds: int, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sample weights ``(factors, labs)`` and offsets ``(labs,)`` from their priors."""
    shape = (family.factors, kinds)
    if family.positive:
        weights = noise.gamma(family.weight_shape, 1 / family.weight_rate, shape)
        return weights, noise.gamma(family.offset_shape, 1 / family.offset_rate, kinds)
    return noise.normal(0, family.weight_sd, shape), noise.normal(0, family.offset_sd, kinds)


def draw_states(family: FactorFamily, shape: tuple[int, ...], noise: np.random.Generator) -> np.ndarray:
    """Sample states ``(patients, visits, factors)`` from their prior."""
    patients, visits = shape
    start = np.full((patients, family.factors), family.start_mean)
    states = [draw_gamma_e(start, family.start_sd, noise)]
    for _ in range(1, visits):
        if family.series:
            states.append(draw_gamma_e(states[-1], family.step_sd, noise))
        else:
            states.append(draw_gamma_e(start, family.start_sd, noise))
    return np.stack(states, 1)


def draw_gamma_e(mean: np.ndarray, sd: float, noise: np.random.Generator) -> np.ndarray:
    """Sample from ``GammaE``, clipped at the smallest number of float32."""
    mean = np.maximum(mean, FLOOR * sd)
    return np.maximum(noise.gamma((mean / sd) ** 2, sd**2 / mean), TINY)


def to_default_dtype(array: np.ndarray) -> Tensor:
    """Convert to torch's default dtype."""
    return torch.tensor(array, dtype=torch.get_default_dtype())
