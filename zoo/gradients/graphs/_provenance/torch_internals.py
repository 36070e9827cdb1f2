"""Private names of torch that have no public equivalent, collected here.

They are looked up at import. If this version of torch lacks one, imports succeed and the tracker raises an error.
"""

import functools
import importlib
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from zoo.gradients._compilation import uncompiled
from zoo.gradients.graphs._provenance.patches import Function, Patch, Patches

OLDEST = "2.6"  # as in pyproject.toml
NEWEST_TESTED = "2.14"
_is_too_old = torch.__version__ < OLDEST
_missing: list[str] = []


def _find(module: str, name: str) -> Any:
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        _missing.append(f"{module}.{name}")
        return None


def check_torch() -> None:
    """Raise an error if this version of torch is too old, or lacks a name that the tracker uses."""
    if not _missing and not _is_too_old:
        return
    lacks = "is too old" if _is_too_old else f"lacks {', '.join(_missing)}"
    raise RuntimeError(
        f"dependencies between samples cannot be tracked: torch {torch.__version__} {lacks}; install a version from "
        f"{OLDEST} to {NEWEST_TESTED}"
    )


# Torch function modes. A mode sees neither what its own handler calls nor what runs while modes are disabled.
untracked = _find("torch._C", "DisableTorchFunction")
num_function_modes: Callable[[], int] = _find("torch._C", "_len_torch_function_stack")
function_modes_are_enabled: Callable[[], bool] = _find("torch._C", "_is_torch_function_enabled")
set_grad_enabled: Callable[[bool], None] = _find("torch._C", "_set_grad_enabled")  # what a mode sees of no_grad

# Memory. Functions in C that bypass the modes, since they are called for every tensor.
storage_address: Callable[[Tensor], int] = _find("torch._C", "_storage_address")
data_address: Callable[[Tensor], int] = _find("torch._C", "_data_address")
StorageWeakRef = _find("torch.multiprocessing.reductions", "StorageWeakRef")

# Wrappers of torch.func (vmap, grad, …) between a tensor and its memory.
is_wrapped: Callable[[Tensor], bool] = _find("torch._C", "_functorch.is_functorch_wrapped_tensor")
get_unwrapped: Callable[[Tensor], Tensor] = _find("torch._C", "_functorch.get_unwrapped")
_interpreters: Callable[[], list[Any] | None] = _find("torch._C", "_functorch.get_interpreter_stack")
_innermost_interpreter: Callable[[], Any] = _find("torch._C", "_functorch.peek_interpreter_stack")
_TransformType: Any = _find("torch._C", "_functorch.TransformType")


def is_transformed() -> bool:
    """Return whether a transform of ``torch.func`` or forward-mode differentiation is active."""
    return _innermost_interpreter() is not None or forward_ad._current_level >= 0


def is_vmapped() -> bool:
    """Return whether ``torch.func.vmap`` is active."""
    return any(interpreter.key() == _TransformType.Vmap for interpreter in _interpreters() or ())


current_graph_task_id: Callable[[], int] = _find("torch._C", "_current_graph_task_id")
"""Number of the backward pass that is running; -1 for none."""

# Operators.
HigherOrderOperator: Any = _find("torch._ops", "HigherOrderOperator")
schemas_of: Callable[[str], list[Any]] = _find("torch._C", "_jit_get_schemas_for_operator")

# TorchScript, whose calls no mode sees.
_ScriptFunction: Any = _find("torch._C", "ScriptFunction")
_ScriptMethod: Any = _find("torch._C", "ScriptMethod")
_BufferDict = _find("torch._C", "BufferDict")
_ModuleDict = _find("torch._C", "ModuleDict")

# Dispatch modes and keys.
num_dispatch_modes: Callable[[], int] = _find("torch._C", "_len_torch_dispatch_stack")
current_dispatch_mode: Callable[[], Any] = _find("torch.utils._python_dispatch", "_get_current_dispatch_mode")
pop_dispatch_mode: Callable[[], Any] = _find("torch.utils._python_dispatch", "_pop_mode")
push_dispatch_mode: Callable[[Any], None] = _find("torch.utils._python_dispatch", "_push_mode")
_DispatchKey = _find("torch._C", "DispatchKey")
_dispatch_keys: Callable[[Tensor], Any] = _find("torch._C", "_dispatch_keys")
_keyset_after: Callable[[Any], Any] = _find("torch._C", "_dispatch_keyset_full_after")
_KeySet: Callable[[Any], Any] = _find("torch._C", "DispatchKeySet")
_python_kernels: Any = _find("torch.library", "_impls")
tree_leaves: Callable[..., list[Any]] = _find("torch.utils._pytree", "arg_tree_leaves")
_find("torch", "ops.aten.add.Tensor._op_dk")  # an attribute of all overloads, which python_kernel uses


def python_kernel(overload: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return the kernel that an operator dispatches these arguments to, if it was registered from Python, else None."""
    tensors = [part for part in tree_leaves(*args, **kwargs) if isinstance(part, Tensor)]
    keys = _KeySet(_DispatchKey.Undefined)
    for tensor in tensors:
        keys = keys | _dispatch_keys(tensor)
    backend = (keys & _keyset_after(_DispatchKey.Python)).highestPriorityTypeId() if tensors else _DispatchKey.CPU
    composite = (_DispatchKey.CompositeExplicitAutograd, _DispatchKey.CompositeExplicitAutogradNonFunctional)
    name = overload.name().replace("::", "/", 1)
    for key in (backend, *composite):
        if f"{name}/{key.name}" in _python_kernels:
            return functools.partial(overload._op_dk, key)
    return None


def script_buffers(script: Any) -> list[Tensor]:
    """Return the buffers of a script's module, which it may write to; none for a function."""
    return _buffers_of(script.owner) if isinstance(script, _ScriptMethod) else []


def _buffers_of(module: Any) -> list[Tensor]:
    own = [tensor for _, tensor in _BufferDict(module).items()]
    return own + [tensor for _, child in _ModuleDict(module).items() for tensor in _buffers_of(child)]


# Functions that no mode sees. While a tracker is entered, the following wrappers replace them.
def _script(tracker: Any, call: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not function_modes_are_enabled():
        return call(*args, **kwargs)
    script, *others = args
    return tracker.propagate_script(call, script, tuple(others), kwargs)


def _constructor(tracker: Any, call: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return tracker.propagate_constructor(call, args, kwargs)


def _push_hooks(tracker: Any, push: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pack, unpack = args
    return push(tracker.track_operators_in(pack), unpack)


def _compile(tracker: Any, compile: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return uncompiled.follow_compile(compile, args, kwargs)


def _convert(tracker: Any, convert: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tracker.add_control_dependencies(tracker.names_of(args))
    return convert(*args, **kwargs)


FUNCTIONALIZE = "_wrap_functional_tensor"  # called by torch.func.functionalize
UNSEEN_FUNCTIONS = [
    Patch(_ScriptFunction, "__call__", _script),
    Patch(_ScriptMethod, "__call__", _script),
    Patch(_find("torch._C", "_nested"), "nested_tensor", _constructor),
    Patch(_find("torch._functorch", "eager_transforms"), FUNCTIONALIZE, _constructor),
    Patch(_find("torch._C", "_autograd"), "_push_saved_tensors_default_hooks", _push_hooks),
    Patch(torch, "compile", _compile),
]
conversions = Patches([Patch(Tensor, name, _convert) for name in ("tolist", "numpy")])
"""Methods that turn values into Python objects without calling an operator."""
