import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from examples.patients.plates import mask_elements, plates


def test_every_plate_has_its_size_and_its_own_dimension(family, labs):
    plate = plates(family, labs, batch=None)
    assert [(one.name, one.dim, one.size) for one in plate] == [
        ("visits", -4, 4),
        ("patients", -3, 3),
        ("factors", -2, 2),
        ("labs", -1, 3),
    ]
    assert [one.subsample_size for one in plate] == [4, 3, 2, 3]


def test_only_patients_are_subsampled(family, labs):
    assert [one.subsample_size for one in plates(family, labs, batch=2)] == [4, 2, 2, 3]


def test_masked_elements_have_no_influence():
    def model():
        with pyro.plate("two", 2), mask_elements(torch.tensor([True, False])):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor([0.5, 9.0]))

    assert poutine.trace(model).get_trace().log_prob_sum() == dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5))
