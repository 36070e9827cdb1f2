from collections.abc import Iterator

import pyro
import pytest
import torch


@pytest.fixture
def isolated_pyro(without_type_checks) -> Iterator[None]:
    """Each test has its own parameters, double precision, and calls without checks of types."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()
