import copy
from collections.abc import Mapping
from typing import NamedTuple

import pyro
import torch
from jaxtyping import Float
from pyro.nn import PyroModule
from torch import Tensor

from examples.patients.family import FactorFamily
from examples.patients.labs import Labs
from examples.patients.plates import mask_elements, plates
from zoo.inference.programs._factors import Factor, GammaFactor, NormalFactor

START_SD = 0.05
START_SHAPE = 100.0


class Factors(NamedTuple):
    """Samples of the latent variables of a factor model; the first dimensions are those of the samples."""

    weights: Float[Tensor, "*draws factors labs"]
    offsets: Float[Tensor, "*draws labs"]
    states: Float[Tensor, "*draws patients visits factors"]

    def of_patients(self, chosen: slice) -> "Factors":
        """Return the samples without the states of other patients."""
        return self._replace(states=self.states[..., chosen, :, :])


class Guide(PyroModule):
    """Mean-field guide: gammas for positive variables, normals for real ones.

    Offsets start at half of a lab's mean in the positive models and at the mean in the others, states at the mean of
    their prior, and weights at random values, since all factors would stay equal otherwise; all with small variance. In
    the positive models the weights explain the other half. The expected value must not start far below the labs: a
    gamma with fixed standard deviation has heavier tails if its mean is closer to 0, which would pull it further down.

    Args:
        family: factor model.
        labs: labs of the patients; the states of each patient have their own parameters.
    """

    def __init__(self, family: FactorFamily, labs: Labs):
        super().__init__()
        self.family = family
        usual = mean_labs(labs)
        self.weights = start_weights(family, usual)
        self.offsets = start_offsets(family, usual)
        self.states = start_states(family, labs)

    def for_patients(self, labs: Labs) -> "Guide":
        """Return a guide for new patients, with fixed weights and offsets and new states."""
        other = Guide(self.family, labs)
        other.weights, other.offsets = freeze(self.weights), freeze(self.offsets)
        return other

    def forward(self, labs: Labs, batch: int | None = None) -> None:
        """Sample weights, offsets, and the states of all patients or of a batch."""
        plate = plates(self.family, labs, batch)
        with plate.labs:
            pyro.sample("offsets", self.offsets())
            with plate.factors:
                pyro.sample("weights", self.weights())
        with plate.patients as chosen, plate.factors:
            attended = labs.attended[chosen].mT[..., None, None]
            if not self.family.series:
                with plate.visits, mask_elements(attended):
                    pyro.sample("states", self.states((slice(None), chosen)))
                return
            for visit, some in enumerate(attended):
                with mask_elements(some):
                    pyro.sample(f"states_{visit}", self.states((visit, chosen)))


def freeze(factor: Factor) -> Factor:
    """Return a copy whose parameters are buffers, so that they are not trained."""
    copied = copy.deepcopy(factor)
    for name, parameter in list(copied.named_parameters()):
        delattr(copied, name)
        copied.register_buffer(name, parameter.detach())
    return copied


def mean_labs(labs: Labs) -> Float[Tensor, " labs"]:
    """Return the mean of each lab over the observed values; 1 if a lab was never observed.

    Example:
        >>> observed = torch.tensor([[[True, False], [True, False]]])
        >>> mean_labs(Labs(torch.tensor([[[3.0, 1.0], [5.0, 1.0]]]), observed, observed.any(2)))
        tensor([4., 1.])
    """
    count = labs.observed.sum((0, 1))
    total = (labs.values * labs.observed).sum((0, 1))
    return (total / count.clamp(min=1)).where(count > 0, 1.0)


def start_weights(family: FactorFamily, usual: Float[Tensor, " labs"]) -> Factor:
    """Random weights: small ones, or positive ones that explain half of each lab."""
    noise = torch.rand(family.factors, len(usual), dtype=usual.dtype, device=usual.device)
    if family.positive:
        return GammaFactor((0.5 + noise) * usual / (2 * family.factors * family.start_mean), START_SHAPE)
    return NormalFactor((noise - 0.5) / (family.factors * family.start_mean), START_SD)


def start_offsets(family: FactorFamily, usual: Float[Tensor, " labs"]) -> Factor:
    """Offsets at the mean of each lab, or half of it."""
    return GammaFactor(usual / 2, START_SHAPE) if family.positive else NormalFactor(usual, START_SD)


def start_states(family: FactorFamily, labs: Labs) -> GammaFactor:
    """States at the mean of their prior: ``(visits, patients, factors, 1)``."""
    patients, visits, _ = labs.values.shape
    return GammaFactor(labs.values.new_full((visits, patients, family.factors, 1), family.start_mean), START_SHAPE)


def factors_of(sites: Mapping[str, Tensor]) -> Factors:
    """Return the latent variables from samples of the sites of either kind of model, each ``(draws, *shape)``.

    Example:
        >>> sites = {"weights": torch.ones(9, 1, 1, 2, 3), "offsets": torch.ones(9, 1, 1, 1, 3)}
        >>> sites |= {f"states_{visit}": torch.ones(9, 4, 2, 1) for visit in range(5)}
        >>> [part.shape for part in factors_of(sites)]
        [torch.Size([9, 2, 3]), torch.Size([9, 3]), torch.Size([9, 4, 5, 2])]
    """
    weights = sites["weights"]
    draws, (count, kinds) = len(weights), weights.shape[-2:]
    if "states" in sites:
        states = sites["states"]
    else:
        visits = sum(name.startswith("states_") for name in sites)
        states = torch.stack([sites[f"states_{visit}"] for visit in range(visits)], -4)
    return Factors(
        weights.reshape(draws, count, kinds),
        sites["offsets"].reshape(draws, kinds),
        states.squeeze(-1).transpose(-3, -2).reshape(draws, states.shape[-3], states.shape[-4], count),
    )
