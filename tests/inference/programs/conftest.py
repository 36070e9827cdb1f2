"""Small data for every program, and the joint density of a program at given values."""

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine


@pytest.fixture
def joint():
    """Log of the joint density of a model at values of its sites: ``joint(model, data, values)``."""

    def log_density(model, data, values) -> float:
        return poutine.trace(poutine.condition(model, values)).get_trace(*data).log_prob_sum().item()

    return log_density


@pytest.fixture(autouse=True)
def own_parameters():
    """Nothing of a test stays in Pyro's store of parameters."""
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def double():
    """New tensors are of float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=range(3))
def noise(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def tensors():
    """Values of sites as tensors of float64."""
    return lambda **values: {name: torch.as_tensor(np.array(value)) for name, value in values.items()}
