import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance.torch_internals import HigherOrderOperator, schemas_of

# Functions that read only metadata of a tensor: its shape, type, device and flags.
_METADATA = {
    *("__len__", "__hash__", "__dir__", "dim", "ndimension", "size", "numel", "nelement", "stride", "storage_offset"),
    *("element_size", "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_same_size", "is_conj"),
    *("is_neg", "is_inference", "get_device", "result_type", "register_hook", "_is_view", "_set_grad_enabled"),
}
_METADATA_ATTRIBUTES = {
    getattr(Tensor, name).__get__
    for name in (
        *("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_leaf", "nbytes", "_version"),
        "_base",  # a tensor with names of its own
    )
}
_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
ACCESSORS = {"__get__", "__set__", "__delete__", "type"}  # of attributes: they return tensors or metadata, not values
# Functions whose output shape depends on data: index of the first argument whose values determine it. All later
# arguments determine it, too.
DYNAMIC_SHAPE_FROM = {
    **dict.fromkeys(("nonzero", "argwhere", "unique", "unique_consecutive", "bincount", "arange", "range"), 0),
    **dict.fromkeys(("masked_select", "repeat_interleave", "tensor_split", "_pad_packed_sequence"), 1),
    "_pack_padded_sequence": 1,
}
DYNAMIC_SHAPE_IF_ALONE = {"where", "repeat_interleave", "one_hot"}  # the same, if called with a single argument
CALLS_PYTHON = {"apply_", "map_", "map2_"}  # call a Python function with each element
_DATA_DEPENDENT = {"__getitem__", *DYNAMIC_SHAPE_FROM, *DYNAMIC_SHAPE_IF_ALONE, *CALLS_PYTHON}
_WITHOUT_SIZES = {"tensor", "as_tensor", "asarray", "einsum"}  # their integer arguments are values, not sizes
_POSITIONS = {"index", "idx", "shifts"}  # integer arguments that select or move elements, and determine no shape
# They use only the metadata of their first argument.
_LIKE_FIRST_ARG = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"),
}
# Result i is a view of argument i, and depends on no other.
_ONE_VIEW_PER_ARGUMENT = {"broadcast_tensors", "meshgrid", "atleast_1d", "atleast_2d", "atleast_3d"}
# Arithmetic that is defined for all values, and copies: written in C++, they raise only errors about shapes and types.
NEVER_RAISE = {
    *("add", "sub", "mul", "neg", "abs", "square", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "sin", "cos"),
    *("tanh", "sigmoid", "relu", "erf", "softplus", "log_sigmoid", "softmax", "log_softmax", "maximum", "minimum"),
    *("matmul", "mm", "bmm", "mv", "dot", "sum", "mean", "logsumexp", "cumsum", "eq", "ne", "lt", "le", "gt", "ge"),
    *("stack", "cat", "clone", "detach", "unsqueeze", "t", "transpose", "where"),
}
BUILTIN_TYPES = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
# Normalization, which updates running statistics in place.
UPDATE_STATISTICS = ("batch_norm", "instance_norm", "native_batch_norm", "_native_batch_norm_legit")
# Functions that write in place without incrementing the version counter; prefixes of their names.
_HIDDEN_WRITES = (*UPDATE_STATISTICS, "_fused_", "_amp_")
_TORCH_NAMESPACES = ("aten::", "prim::", "prims::")
_RUN_HOOKS = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
# Functions that expose memory to code that calls no torch function, or that store gradients in ``grad``.
_OPAQUE = {"__dlpack__", "data_ptr", "storage", "untyped_storage", "share_memory_", "backward"}


class OpSemantics(NamedTuple):
    """Effects of a torch function that cannot be seen from its arguments and results."""

    name: str
    metadata_only: bool
    """Reads metadata of tensors, but not their values."""
    opaque: bool
    """Exposes values where they cannot be tracked."""
    data_dependent: bool
    """May turn values into a Python object, or into the shape of a tensor that it returns."""
    detaches: bool
    """Returns a constant, as the program intends: no gradient is lost."""
    like_first_arg: bool
    """Uses its first argument for the metadata alone."""
    one_view_per_argument: bool
    """Returns a view of each argument, which depends on no other argument."""
    may_raise: bool
    """May raise an error that depends on values."""
    may_write: bool
    """May write in place to its positional arguments."""
    hidden_write: bool
    """Writes in place without incrementing the version counter."""
    runs_python: bool
    """May run code of the program: hooks, callback arguments, a custom operator."""


@functools.cache
def semantics_of(func: Callable[..., Any]) -> OpSemantics:
    name = name_of(func)
    integers, varargs_from = integer_arguments(func)
    return OpSemantics(
        name,
        metadata_only=name in _METADATA or func in _METADATA_ATTRIBUTES,
        opaque=name in _OPAQUE,
        data_dependent=name in _DATA_DEPENDENT or bool(integers) or varargs_from < sys.maxsize,
        detaches=name == "detach" or func == _DATA,
        like_first_arg=name in _LIKE_FIRST_ARG,
        one_view_per_argument=name in _ONE_VIEW_PER_ARGUMENT,
        may_raise=name not in NEVER_RAISE or not isinstance(func, BUILTIN_TYPES),
        may_write=_may_write(func),
        hidden_write=name.startswith(_HIDDEN_WRITES),
        runs_python=_runs_python(func),
    )


def _runs_python(func: Callable[..., Any]) -> bool:
    if isinstance(func, HigherOrderOperator) or func in _RUN_HOOKS:
        return True
    name = getattr(func, "_qualified_op_name", None) or str(getattr(func, "_schema", _TORCH_NAMESPACES[0]))
    return not name.startswith(_TORCH_NAMESPACES)


def _may_write(func: Callable[..., Any]) -> bool:
    """Return False if the function is written in C++ and its schema declares no write.

    Keyword arguments such as ``out=`` are not considered. Python functions share names with operators, but may do more:
    ``relu(inplace=True)``.
    """
    name = name_of(func)
    schemas = schemas_of(f"aten::{'index' if name == '__getitem__' else name}")
    if not schemas or name.startswith(_HIDDEN_WRITES) or not isinstance(func, BUILTIN_TYPES):
        return True
    arguments = [argument for schema in schemas for argument in schema.arguments if not argument.kwarg_only]
    return any(argument.alias_info is not None and argument.alias_info.is_write for argument in arguments)


@functools.cache
def integer_arguments(func: Callable[..., Any]) -> tuple[set[int | str], int]:
    """Return which arguments of a function are never tensors, such as sizes; read from its schema, else its signature.

    The first result holds positions and names. The second is the position from which on all arguments are integers, as
    in ``x.view(2, 3)``; ``sys.maxsize`` if there is none.
    """
    name = name_of(func)
    if name.startswith("__") or name in _WITHOUT_SIZES:
        return set(), sys.maxsize
    integers: set[int | str] = set()
    if schemas := schemas_of(f"aten::{name}"):
        arguments = [(i, argument) for schema in schemas for i, argument in enumerate(schema.arguments)]
        for i, argument in arguments:
            if "int" in str(argument.type).lower() and argument.name not in _POSITIONS:
                integers |= {i, argument.name}
        for i, argument in arguments:
            if "Tensor" in str(argument.type):
                integers -= {i, argument.name}
        last = max((i for i, argument in arguments if not argument.kwarg_only), default=-1)
        return integers, last + 1 if last in integers else sys.maxsize
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):  # not written in Python
        return set(), 1
    for i, parameter in enumerate(parameters):
        if i and "Tensor" not in str(parameter.annotation):
            integers |= {i, parameter.name}
    return integers, sys.maxsize


@functools.cache
def name_of(func: Callable[..., Any]) -> str:
    """Return the name of a torch function; of an operator without its overload."""
    return getattr(func, "__name__", "").partition(".")[0]
