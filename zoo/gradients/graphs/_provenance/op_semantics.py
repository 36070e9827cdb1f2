import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator

# What a tensor may tell without telling its values.
METADATA = {
    *("__len__", "__hash__", "__dir__", "dim", "ndimension", "size", "numel", "nelement", "stride", "storage_offset"),
    *("element_size", "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_same_size", "is_conj"),
    *("is_neg", "is_inference", "get_device", "result_type", "register_hook", "_is_view", "_set_grad_enabled"),
}
ATTRIBUTES = {
    getattr(Tensor, name).__get__
    for name in (
        *("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_leaf", "nbytes", "_version"),
        "_base",  # a tensor with names of its own
    )
}
DATA = Tensor.data.__get__  # type: ignore[attr-defined]
ACCESS = {"__get__", "__set__", "__delete__", "type"}  # of attributes, which hold other tensors or tell no values
# The first argument from which on values become the shape of a result, beside those that are taken for integers.
SHAPE_FROM = {
    **dict.fromkeys(("nonzero", "argwhere", "unique", "unique_consecutive", "bincount", "arange", "range"), 0),
    **dict.fromkeys(("masked_select", "repeat_interleave", "tensor_split", "_pad_packed_sequence"), 1),
    "_pack_padded_sequence": 1,
}
ALONE = {"where", "repeat_interleave", "one_hot"}  # have a shape from their values if there is no other argument
GIVE_TO_PYTHON = {"apply_", "map_", "map2_"}
TELLING = {"__getitem__", *SHAPE_FROM, *ALONE, *GIVE_TO_PYTHON}  # may tell even if they return a tensor
OF_VALUES = {"tensor", "as_tensor", "asarray", "einsum"}  # take no integers for sizes
WHICH = {"index", "idx", "shifts"}  # integers that tell values apart, not shapes
# What looks at its first argument's shape alone.
LIKE_THE_FIRST = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"),
}
ONE_BY_ONE = {"broadcast_tensors", "meshgrid", "atleast_1d", "atleast_2d", "atleast_3d"}  # a result views one argument
# Arithmetic that gives some number, and moves of memory that give none, whatever the values: as methods and functions
# written in C++ these raise errors of shapes and types alone.
NEVER_RAISE = {
    *("add", "sub", "mul", "neg", "abs", "square", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "sin", "cos"),
    *("tanh", "sigmoid", "relu", "erf", "softplus", "log_sigmoid", "softmax", "log_softmax", "maximum", "minimum"),
    *("matmul", "mm", "bmm", "mv", "dot", "sum", "mean", "logsumexp", "cumsum", "eq", "ne", "lt", "le", "gt", "ge"),
    *("stack", "cat", "clone", "detach", "unsqueeze", "t", "transpose", "where"),
}
OF_C = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
WRITE_STATISTICS = ("batch_norm", "instance_norm", "native_batch_norm", "_native_batch_norm_legit")
WRITE_UNTOLD = (*WRITE_STATISTICS, "_fused_", "_amp_")  # without counting it
OF_TORCH = ("aten::", "prim::", "prims::")
RUN_HOOKS = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
UNSEEN = {"__dlpack__", "data_ptr", "storage", "untyped_storage", "share_memory_", "backward"}


class Integers(NamedTuple):
    """Arguments of a torch function that are taken for integers, such as sizes and dimensions."""

    positions: tuple[int, ...]
    further: int
    """From this position on, all: ``x.view(2, 3)``."""
    names: frozenset[str]


class Kind(NamedTuple):
    """What a torch function does with values, as far as that cannot be seen from its arguments and results."""

    name: str
    harmless: bool
    """Tells of tensors, but not of their values."""
    unseen: bool
    """Takes values to where they cannot be followed."""
    tells: bool
    """May tell values by the shape of a tensor that it returns."""
    detaches: bool
    like_the_first: bool
    one_by_one: bool
    may_raise: bool
    """An error that depends on values."""
    may_write: bool
    """To its positional arguments."""
    writes_untold: bool
    runs_python: bool
    """May run code of the program: hooks, functions that it is given, a custom operator."""


@functools.cache
def kind_of(func: Callable[..., Any]) -> Kind:
    """Find out what a torch function does."""
    name = name_of(func)
    integers = integers_of(func)
    return Kind(
        name,
        harmless=name in METADATA or func in ATTRIBUTES,
        unseen=name in UNSEEN,
        tells=name in TELLING or bool(integers.positions or integers.names or integers.further < sys.maxsize),
        detaches=name == "detach" or func == DATA,
        like_the_first=name in LIKE_THE_FIRST,
        one_by_one=name in ONE_BY_ONE,
        may_raise=name not in NEVER_RAISE or not isinstance(func, OF_C),
        may_write=may_write(func),
        writes_untold=name.startswith(WRITE_UNTOLD),
        runs_python=runs_python(func),
    )


def runs_python(func: Callable[..., Any]) -> bool:
    """Tell whether a torch function is an operator of others, or one that runs hooks or functions."""
    if isinstance(func, HigherOrderOperator) or func in RUN_HOOKS:
        return True
    name = getattr(func, "_qualified_op_name", None) or str(getattr(func, "_schema", OF_TORCH[0]))
    return not name.startswith(OF_TORCH)


def may_write(func: Callable[..., Any]) -> bool:
    """Tell whether a torch function may write to its positional arguments; not if its schema, in C++, says otherwise.

    ``out=`` is given by name. Functions of Python have the names of operators, but may do more: ``relu(inplace=True)``.
    """
    name = name_of(func)
    operator = "index" if name == "__getitem__" else name
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{operator}")
    if not schemas or name.startswith(WRITE_UNTOLD) or not isinstance(func, OF_C):
        return True
    arguments = [argument for schema in schemas for argument in schema.arguments if not argument.kwarg_only]
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in arguments)


@functools.cache
def integers_of(func: Callable[..., Any]) -> Integers:
    """Find out where a torch function takes integers, and no tensors: from its schema, or else its signature."""
    name = name_of(func)
    if name.startswith("__") or name in OF_VALUES:
        return Integers((), sys.maxsize, frozenset())
    if schemas := torch._C._jit_get_schemas_for_operator(f"aten::{name}"):
        kinds = [(i, a.name, str(a.type), a.kwarg_only) for schema in schemas for i, a in enumerate(schema.arguments)]
        tensors = {key for i, label, kind, _ in kinds if "Tensor" in kind for key in (i, label)}
        integers = {
            key for i, label, kind, _ in kinds if "int" in kind.lower() and label not in WHICH for key in (i, label)
        }
        integers -= tensors
        last = max((i for i, _, _, by_name in kinds if not by_name), default=-1)
        further = last + 1 if last in integers else sys.maxsize
    else:
        try:
            parameters = list(inspect.signature(func).parameters.values())
        except (TypeError, ValueError):  # is not written in Python
            return Integers((), 1, frozenset())
        sizes = [(i, p.name) for i, p in enumerate(parameters) if i and "Tensor" not in str(p.annotation)]
        integers, further = {key for pair in sizes for key in pair}, sys.maxsize
    positions = tuple(key for key in integers if isinstance(key, int))
    return Integers(positions, further, frozenset(key for key in integers if isinstance(key, str)))


@functools.cache
def name_of(func: Callable[..., Any]) -> str:
    """Name of a torch function, and of an operator without its overload's."""
    return getattr(func, "__name__", "").partition(".")[0]
