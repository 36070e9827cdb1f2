from typing import Any, NamedTuple

import pyro
from jaxtyping import Bool
from pyro import poutine
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor

from examples.patients.family import FactorFamily
from examples.patients.labs import Labs


class Plates(NamedTuple):
    """Plates of a factor model, each with a dimension of its own."""

    visits: SubsampleMessenger
    """Dimension -4; of independent states only."""
    patients: Any
    """Dimension -3; yields the indices of the subsample."""
    factors: SubsampleMessenger
    """Dimension -2."""
    labs: SubsampleMessenger
    """Dimension -1."""


def plates(family: FactorFamily, labs: Labs, batch: int | None) -> Plates:
    """Return the plates of model and guide, with a subsample of the patients, or all if None."""
    patients, visits, kinds = labs.values.shape
    return Plates(
        pyro.plate("visits", visits, dim=-4),
        pyro.plate("patients", patients, subsample_size=batch, dim=-3),
        pyro.plate("factors", family.factors, dim=-2),
        pyro.plate("labs", kinds, dim=-1),
    )


def mask_elements(where: Bool[Tensor, "..."]) -> MaskMessenger:
    """Mask all other elements."""
    return poutine.mask(mask=where)  # type: ignore[call-overload]  # which knows of BoolTensor only
