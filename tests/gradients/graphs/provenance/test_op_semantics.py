import types

import pytest
import torch
from torch import nn

from zoo.gradients.graphs._provenance.op_semantics import BUILTIN_TYPES, NEVER_RAISE, semantics_of

# Values at which some functions of numbers are undefined.
ODD = (
    torch.tensor([[0.0, -1.0], [torch.inf, torch.nan]]),
    torch.tensor([[-1e300, 0.5], [-torch.inf, 2.0]], dtype=torch.float64),
    torch.tensor([[0, -1], [2**62, -(2**63)]]),
    torch.tensor([[True, False], [False, False]]),
)
PLAIN = torch.ones(2, 2)
PLACES = (torch, torch.Tensor, torch._C._nn)
EVERYWHERE = [getattr(place, name, None) for place in PLACES for name in sorted(NEVER_RAISE)]
FUNCTIONS = [function for function in EVERYWHERE if isinstance(function, BUILTIN_TYPES)]


def arguments(function, values):
    """Calls of a function with some values."""
    if function in (torch.stack, torch.cat):
        return [([values, values],)]
    if function in (torch.transpose, torch.Tensor.transpose):
        return [(values, 0, 1)]
    ways = [(values,), (values, values), (values, 0), (values, -1), (values > 0, values, values)]
    return [*ways, (values[0], values[0]), (values, values[0]), (values[None], values[None])]


def outcome(call, given):
    """Return the type of the error that a call raises, or None."""
    try:
        call(*given)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        return type(error)
    return None


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: f"{type(function).__name__}_{function.__name__}")
def test_arithmetic_raises_no_error_that_depends_on_values(function):
    tried = 0
    for values in ODD:
        for odd, plain in zip(arguments(function, values), arguments(function, PLAIN.to(values.dtype)), strict=True):
            expected = outcome(function, plain)
            assert outcome(function, odd) is expected, [type(part) for part in odd]
            tried += expected is None
    assert tried


def test_functions_whose_errors_depend_on_values_may_raise():
    for function in (torch.linalg.cholesky, torch.Tensor.__getitem__, torch.div, torch.pow, torch.Tensor.item):
        assert semantics_of(function).may_raise
    assert semantics_of(types.FunctionType((lambda: 0).__code__, {}, "mul")).may_raise


def test_functions_that_write_in_place_may_write():
    for function in (
        *(torch.Tensor.add_, torch.Tensor.copy_, torch.Tensor.__iadd__, torch.Tensor.__setitem__, torch.Tensor.set_),
        *(torch.relu_, nn.functional.relu, nn.functional.dropout, torch.batch_norm, torch.Tensor.index_put_),
        *(torch.Tensor.data.__set__, torch.Tensor.swapaxes_, torch.Tensor.random_, torch.embedding_renorm_),
    ):
        assert semantics_of(function).may_write, function
    for function in (torch.Tensor.add, torch.tanh, torch.Tensor.__getitem__, torch.matmul):
        assert not semantics_of(function).may_write, function
