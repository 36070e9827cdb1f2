"""Python code of a program that torch runs inside one of its functions: hooks, custom operators, branches of cond."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.gradients.graphs._provenance import torch_internals as internals
from zoo.gradients.graphs._provenance.control_flow import ATOMS, COLLECTIONS, PLAIN_TENSORS
from zoo.gradients.graphs._provenance.names import NO_NAMES, Names

TORCH_TYPES = ((), (Tensor,))  # what torch passes as ``types`` if no argument is of a subclass of Tensor
# Types of arguments that run no Python code of the program. Functions do, and so do objects with a __float__.
_TYPES_WITHOUT_CODE = {
    *(*PLAIN_TENSORS, *ATOMS, torch.Size, torch.memory_format, torch.layout, torch.Generator, complex, bytes, range),
    *(slice, type(Ellipsis), torch.SymInt, torch.SymFloat, torch.SymBool),
}


class OperatorMode(TorchDispatchMode):
    """Passes every operator that torch executes to a tracker, whether the program calls it or torch does.

    A torch function mode sees only the outermost function. Torch runs Python code inside of it: autograd hooks and
    functions, kernels of custom operators, branches of ``torch.cond``. A dispatch mode sees the operators of this code.
    """

    supports_higher_order_operators = True

    def __init__(self, tracker: Any):
        super().__init__()
        self.tracker = tracker
        self.argument_names: Names = NO_NAMES

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.argument_names |= self.tracker.names_of((args, kwargs))
        call = functools.partial(self._call, func, types)
        return self.tracker.propagate_operator(func, call, args, kwargs, lambda: self.argument_names)

    def _call(self, func: Any, types: tuple[type, ...], *args: Any, **kwargs: Any) -> Any:
        """Call an operator; torch disables this mode meanwhile, but Python code in the operator runs in it again."""
        if isinstance(func, internals.HigherOrderOperator):
            if internals.num_dispatch_modes():  # another mode traces the operator now and runs it later
                return func(*args, **kwargs)
            return func(
                *map(self._in_this_mode, args), **{key: self._in_this_mode(value) for key, value in kwargs.items()}
            )
        if func is torch.ops.aten._local_scalar_dense.default and not isinstance(args[0], Tensor):
            return args[0]  # TorchScript reads the number in a tensor, but torch passes it to modes as a number
        for cls in types:
            if not _is_torch_class(cls):
                with self:
                    result = cls.__torch_dispatch__(func, types, args, kwargs)  # type: ignore[attr-defined]
                if result is not NotImplemented:
                    return result
        if isinstance(func, OpOverload) and (kernel := internals.python_kernel(func, args, kwargs)):
            with self:
                return kernel(*args, **kwargs)
        return func(*args, **kwargs)

    def _in_this_mode(self, value: Any) -> Any:
        """Return an argument whose functions are wrapped to run in this mode."""
        if type(value) in (tuple, list):
            return type(value)(map(self._in_this_mode, value))
        return run_within(lambda: self, value) if callable(value) and not isinstance(value, type | Tensor) else value


def run_within(make_context: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to run in a new context each time."""

    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        with make_context():
            return function(*args, **kwargs)

    return call


def may_run_python(types: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a torch function may run Python code of the program because of its arguments or active modes."""
    for part in args:
        if type(part) not in _TYPES_WITHOUT_CODE and _has_user_code(part):
            return True
    if kwargs and any(map(_has_user_code, kwargs.values())):
        return True
    return internals.num_dispatch_modes() > 0 or (types not in TORCH_TYPES and not all(map(_is_torch_class, types)))


def _has_user_code(value: Any) -> bool:
    cls: type = type(value)
    if cls in _TYPES_WITHOUT_CODE:
        return False
    if cls is dict:
        return any(map(_has_user_code, value.values()))
    if cls in COLLECTIONS:
        return any(map(_has_user_code, value))
    return callable(value) or not _is_torch_class(cls)


@functools.cache
def _is_torch_class(cls: Hashable) -> bool:
    return str(cls.__module__).partition(".")[0] in ("torch", "builtins", "numpy", "enum")


@contextmanager
def below_other_modes(mode: OperatorMode) -> Iterator[None]:
    """Enter a mode below the program's own dispatch modes, so that it sees the operators that they call, too."""
    above = []
    # Modes with a key are torch's own, and stay below.
    while (top := internals.current_dispatch_mode()) is not None and getattr(top, "_mode_key", None) is None:
        above.append(internals.pop_dispatch_mode())
    try:
        with mode:
            for other in reversed(above):
                internals.push_dispatch_mode(other)
            try:
                yield
            finally:
                for _ in above:
                    internals.pop_dispatch_mode()
    finally:
        for other in reversed(above):
            internals.push_dispatch_mode(other)
