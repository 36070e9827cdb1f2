from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from examples.patients.density import lab_log_density
from examples.patients.family import FactorFamily
from examples.patients.guide import Factors
from examples.patients.labs import Labs


class Prediction(NamedTuple):
    """Predictive log-likelihood of held-out labs by patient.

    Example:
        >>> prediction = Prediction(torch.tensor([-2.0, -4.0]), torch.tensor([1, 2]))
        >>> prediction.per_lab.item()
        -2.0
    """

    log_likelihood: Float[Tensor, " patients"]
    """Sum over the patient's held-out labs of ``log p(lab | all that is shown)``, in nats."""
    labs: Tensor
    """Number of held-out labs of each patient, ``(patients,)``."""

    @property
    def per_lab(self) -> Float[Tensor, ""]:
        """Mean log-likelihood per held-out lab in nats."""
        return self.log_likelihood.sum() / self.labs.sum()


def predictive_log_likelihood(family: FactorFamily, held_out: Labs, factors: Factors) -> Prediction:
    """Return the log of the mean density of each held-out lab over samples of the guide or of a chain.

    It refers to the unit of the labs: dividing them by a constant adds its logarithm.

    Args:
        family: factor model.
        held_out: labs to be predicted, marked as observed.
        factors: samples, with the states of these patients.

    Raises:
        ValueError: no lab is held out.
    """
    if not held_out.observed.any():
        raise ValueError("no lab is held out, so there is nothing to predict")
    density = lab_log_density(family, held_out, factors)
    mean = density.logsumexp(0) - torch.tensor(len(density)).log()
    return Prediction(mean.sum((-2, -1)), held_out.observed.sum((-2, -1)))
