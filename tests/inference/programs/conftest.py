import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _own_parameters(own_parameters):
    """Nothing of a test stays in Pyro's parameter store."""


@pytest.fixture(params=range(3))
def noise(request):
    return np.random.default_rng(request.param)
