"""Python code of a program that torch runs inside one of its functions: hooks, custom operators, branches of cond."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils import _python_dispatch as dispatch
from torch.utils._pytree import arg_tree_leaves

from zoo.gradients._compilation import uncompiled
from zoo.gradients.graphs._provenance.control_flow import ATOMS, COLLECTIONS, PLAIN
from zoo.gradients.graphs._provenance.names import NO_NAMES, Names
from zoo.gradients.graphs._provenance.patches import Function, Patch, Patches

UNDER_PYTHON = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.Python)
NO_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.Undefined)
ALL_BACKENDS = (
    torch._C.DispatchKey.CompositeExplicitAutograd,
    torch._C.DispatchKey.CompositeExplicitAutogradNonFunctional,
)
DEPENDS_ON_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
OF_TORCH = ((), (Tensor,))  # classes of arguments that torch tells a mode, where none is a class of others
# Arguments that run no code of the program: a number's __float__ or a function would.
KNOWN = {
    *(*PLAIN, *ATOMS, torch.Size, torch.memory_format, torch.layout, torch.Generator, complex, bytes, range, slice),
    *(type(Ellipsis), torch.SymInt, torch.SymFloat, torch.SymBool),
}


class OperatorMode(dispatch.TorchDispatchMode):
    """Shows a follower every operator that torch executes, whoever calls it.

    Torch functions are shown to no mode while another one runs. Operators are, whether the autograd engine calls them
    or Python code that torch runs inside the function.
    """

    supports_higher_order_operators = True

    def __init__(self, follower: Any):
        super().__init__()
        self.follower = follower
        self.met: Names = NO_NAMES

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call an operator through the follower."""
        kwargs = kwargs or {}
        self.met |= self.follower.of((args, kwargs))
        call = functools.partial(self._call, func, types)
        return self.follower.follow_operator(func, call, args, kwargs, lambda: self.met)

    def _call(self, func: Any, types: tuple[type, ...], *args: Any, **kwargs: Any) -> Any:
        """Call an operator, with this mode on for the Python code in it, which torch would run without."""
        if isinstance(func, HigherOrderOperator):
            if torch._C._len_torch_dispatch_stack():  # it is traced, and run later
                return func(*args, **kwargs)
            return func(*map(self._observed, args), **{key: self._observed(value) for key, value in kwargs.items()})
        if func is torch.ops.aten._local_scalar_dense.default and not isinstance(args[0], Tensor):
            return args[0]  # a number, shown as itself though TorchScript has wrapped it in a tensor
        for cls in types:
            if not is_of_torch(cls):
                with self:
                    result = cls.__torch_dispatch__(func, types, args, kwargs)  # type: ignore[attr-defined]
                if result is not NotImplemented:
                    return result
        if isinstance(func, OpOverload) and (key := python_kernel(func, args, kwargs)):
            with self:
                return func._op_dk(key, *args, **kwargs)
        return func(*args, **kwargs)

    def _observed(self, value: Any) -> Any:
        """Return an argument in which functions enter this mode."""
        if type(value) in (tuple, list):
            return type(value)(map(self._observed, value))
        if not callable(value) or isinstance(value, type | Tensor):
            return value
        return observed(value, lambda: self)


def observed(function: Function, mode: Callable[[], Any]) -> Function:
    """Return a function that runs in a mode."""

    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return function(*args, **kwargs)

    return call


def may_run_python(types: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether code of the program may run inside a torch function, judging by its arguments."""
    for part in args:
        if type(part) not in KNOWN and is_foreign(part):
            return True
    if kwargs and any(map(is_foreign, kwargs.values())):
        return True
    return torch._C._len_torch_dispatch_stack() > 0 or (types not in OF_TORCH and not all(map(is_of_torch, types)))


def is_foreign(value: Any) -> bool:
    """Return whether an argument is, or holds, an object with code of the program's."""
    kind: type = type(value)
    if kind in KNOWN:
        return False
    if kind is dict:
        return any(map(is_foreign, value.values()))
    if kind in COLLECTIONS:
        return any(map(is_foreign, value))
    return callable(value) or not is_of_torch(kind)


@functools.cache
def is_of_torch(cls: Hashable) -> bool:
    """Return whether a class is torch's own."""
    return str(cls.__module__).partition(".")[0] in ("torch", "builtins", "numpy", "enum")


def python_kernel(operator: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the dispatch key under which an operator calls a kernel that was registered from Python, if it does."""
    tensors = [part for part in arg_tree_leaves(*args, **kwargs) if isinstance(part, Tensor)]
    keys = functools.reduce(lambda keys, tensor: keys | torch._C._dispatch_keys(tensor), tensors, NO_KEYS)
    backend = (keys & UNDER_PYTHON).highestPriorityTypeId() if tensors else torch._C.DispatchKey.CPU
    name = operator.name().replace("::", "/", 1)
    return next((key for key in (backend, *ALL_BACKENDS) if f"{name}/{key.name}" in torch.library._impls), None)


@contextmanager
def below_other_modes(mode: OperatorMode) -> Iterator[None]:
    """Enter a mode below the dispatch modes of the program, whose own operators it then sees too."""
    above = []
    while (top := dispatch._get_current_dispatch_mode()) is not None and getattr(top, "_mode_key", None) is None:
        above.append(dispatch._pop_mode())
    try:
        with mode:
            for other in reversed(above):
                dispatch._push_mode(other)
            try:
                yield
            finally:
                for _ in above:
                    dispatch._pop_mode()
    finally:
        for other in reversed(above):
            dispatch._push_mode(other)


def _read(follower: Any, read: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    follower.escape(follower.of(args))
    return read(*args, **kwargs)


reads = Patches([Patch(Tensor, name, _read) for name in ("tolist", "numpy")])
"""Where values become Python objects without an operator."""


def _push_hooks(follower: Any, push: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pack, unpack = args
    return push(observed(pack, follower.observing), unpack)


HOOKS = [Patch(torch._C._autograd, "_push_saved_tensors_default_hooks", _push_hooks)]


def _compile(follower: Any, compile: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return uncompiled.follow_compile(compile, args, kwargs)


COMPILATION = [Patch(torch, "compile", _compile)]
