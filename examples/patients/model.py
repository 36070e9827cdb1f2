import pyro
from torch import Tensor

from examples.patients.family import FactorFamily
from examples.patients.labs import Labs
from examples.patients.plates import mask_elements, plates


def model(family: FactorFamily, labs: Labs, batch: int | None = None) -> None:
    """Factor model of the labs of patients; see ``FactorFamily``.

    Each plate has its own dimension: visits -4 (independent states only), patients -3, factors -2 and labs -1. In a
    series each visit has its own site. A single site for all visits would be shorter, but since a state influences the
    next one it could not be in a plate of visits, and each state's score would be multiplied by the costs of all visits
    of the patient instead of its own and the next one.

    Args:
        family: model and scales.
        labs: labs of the patients; padding and unobserved labs have no influence.
        batch: number of patients to subsample; None for all.
    """
    plate = plates(family, labs, batch)
    with plate.labs:
        offsets = pyro.sample("offsets", family.offset_prior(labs.values))
        with plate.factors:
            weights = pyro.sample("weights", family.weight_prior(labs.values))
    with plate.patients as chosen:
        some = labs.of_patients(chosen)
        # (visits, patients, factors, labs), with 1 for what does not apply
        values, observed = (part.transpose(0, 1).unsqueeze(-2) for part in (some.values, some.observed))
        attended = some.attended.mT[..., None, None]
        if not family.series:
            with plate.visits:
                with plate.factors, mask_elements(attended):
                    states = pyro.sample("states", family.first_state(values))
                with plate.labs, mask_elements(observed):
                    pyro.sample("values", family.lab(expected_labs(states, weights, offsets)), obs=values)
            return
        prior = family.first_state(values)
        for visit in range(len(values)):
            with plate.factors, mask_elements(attended[visit]):
                states = pyro.sample(f"states_{visit}", prior)
            with plate.labs, mask_elements(observed[visit]):
                pyro.sample(f"values_{visit}", family.lab(expected_labs(states, weights, offsets)), obs=values[visit])
            prior = family.next_state(states)


def expected_labs(states: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Return ``w x + o``; dimension -2 is that of the factors, -1 that of the labs."""
    return (states * weights).sum(-2, keepdim=True) + offsets
