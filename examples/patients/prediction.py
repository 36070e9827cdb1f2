from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.patients.density import lab_log_density
from examples.patients.family import FactorFamily
from examples.patients.guide import Factors
from examples.patients.labs import Labs


class Prediction(NamedTuple):
    """How well held-out labs were predicted, by patient.

    Example:
        >>> prediction = Prediction(torch.tensor([-2.0, -4.0]), torch.tensor([1, 2]))
        >>> prediction.per_lab.item()
        -2.0
    """

    log_likelihood: Float[Tensor, " patients"]
    """Sum over the patient's held-out labs of ``log p(lab | all that is shown)``, in nats."""
    labs: Tensor
    """How many labs of the patient were held out, ``(patients,)``."""

    @property
    def per_lab(self) -> Float[Tensor, ""]:
        """Mean over all held-out labs, in nats per observed lab."""
        return self.log_likelihood.sum() / self.labs.sum()


def predictive_log_likelihood(family: FactorFamily, held_out: Labs, factors: Factors) -> Prediction:
    """Predict each held-out lab on its own by the mean of its density over draws of q or of a chain.

    In the unit of the labs as they are given: dividing labs by a constant adds its logarithm.

    Args:
        family: the model.
        held_out: the labs to be predicted count as observed.
        factors: draws, with the states of these patients.

    Raises:
        ValueError: no lab is held out.
    """
    if not held_out.observed.any():
        raise ValueError("no lab is held out, so there is nothing to predict")
    density = lab_log_density(family, held_out, factors)
    mean = density.logsumexp(0) - torch.tensor(len(density)).log()
    return Prediction(mean.sum((-2, -1)), held_out.observed.sum((-2, -1)))
