import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_map_only

from zoo.gradients._compilation import uncompilable

_MAX_NODES = 50  # of a graph that are searched for a parameter


class Source(Enum):
    """Why no parameter is known from which the log-probabilities of a step were computed."""

    NO_GRADIENT = "no gradient"  # no optimizer ends the step: a later call may have a gradient, and the same signal
    NOT_FOUND = "not found"  # any optimizer may hold the parameters


class ParameterVersion:
    """Version of a parameter from which the log-probabilities of a step were computed, at the beginning of the step."""

    def __init__(self, leaf: Tensor):
        self.leaf = ref(leaf)
        self.version = leaf._version

    def __reduce__(self) -> tuple[type[Source], tuple[str]]:
        return Source, (Source.NO_GRADIENT.value,)  # a copy of the module has other parameters, which are not known yet

    @property
    def is_modified(self) -> bool:
        """Whether it was changed in place or replaced, as loops without an optimizer do."""
        leaf = self.leaf()
        return leaf is None or leaf._version != self.version

    def is_held_by(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates it."""
        leaf = self.leaf()
        return any(x is leaf for group in optimizer.param_groups for x in group["params"])


class RunningState(nn.Module):
    """Module whose buffers are updated by its calls, such as a running mean.

    Within a step of a ``Reinforce`` its value is frozen: it is called several times, say once per time step, and an
    update by one call depends on samples that a later call shares, so that using it there would bias the gradient. The
    buffers are updated at once; the value follows when the step ends.

    A step ends when an optimizer that holds the parameter takes its step, when the parameter is seen to be changed or
    replaced, or when another state is loaded. A call without a gradient, another optimizer, or a cast does not end it:
    later calls may have the same signal.
    """

    frozen_within_step = False
    _step: Any = None  # state at the beginning of the step; None outside of one
    _parameter: ParameterVersion | Source | None = None  # source of the step's log-probabilities; None before the first

    @property
    def updates_buffers(self) -> bool:
        """Whether a call changes the values of later calls."""
        return True

    def end_step(self) -> None:
        """Let the value follow the buffers."""
        vars(self).update(_step=None, _parameter=None)  # Module.__setattr__ takes ten times as long

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.frozen_within_step:  # a copy, or unpickled
            _running_states.add(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningState":
        super()._apply(fn, recurse)
        vars(self)["_step"] = tree_map_only(Tensor, fn, self._step)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any) -> None:
        before = None if self._step is None else copy.deepcopy(self._buffers)
        super()._load_from_state_dict(state_dict, *args)
        if before is not None and not all(map(is_same, before.values(), self._buffers.values())):
            self.end_step()


def is_same(x: Tensor | None, y: Tensor | None) -> bool:
    """Whether two buffers hold the same numbers."""
    if x is None or y is None:
        return x is y
    return x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)


_running_states: "WeakSet[RunningState]" = WeakSet()


def freeze_within_step(module: nn.Module) -> list[RunningState]:
    """Freeze the values of all running states in a module within each step, and return these."""
    states = [part for part in module.modules() if isinstance(part, RunningState) and part.updates_buffers]
    for state in states:
        state.frozen_within_step = True
        _running_states.add(state)
    return states


def end_step(module: nn.Module) -> None:
    """End the step of all states in a module."""
    if all(state._step is None for state in _running_states):  # faster than a search in a large module
        return
    for part in module.modules():
        if isinstance(part, RunningState):
            part.end_step()


def in_backward() -> bool:
    """Whether a backward pass is running, as when a checkpoint recomputes part of the same step."""
    return torch._C._current_graph_task_id() != -1


def begin_or_continue_step(states: Sequence[RunningState], log_prob: Tensor) -> None:
    """End the previous step if its parameter has changed; record the parameter that ``log_prob`` depends on."""
    if torch.compiler.is_compiling():  # there is no graph
        for state in states:
            vars(state)["_parameter"] = Source.NOT_FOUND
        return
    recomputed = in_backward()
    for state in states:
        if not recomputed and isinstance(state._parameter, ParameterVersion) and state._parameter.is_modified:
            state.end_step()
    unknown = [state for state in states if state._parameter in (None, Source.NO_GRADIENT)]
    if not unknown:
        return
    if not log_prob.requires_grad:
        source: ParameterVersion | Source = Source.NO_GRADIENT
    else:  # recomputed values may depend on copies of parameters
        source = Source.NOT_FOUND if recomputed else parameter_of(log_prob) or Source.NOT_FOUND
    for state in unknown:
        vars(state)["_parameter"] = source


@uncompilable
def end_steps_of(optimizer: Optimizer, *_: Any) -> None:
    """End the step of states whose parameter an optimizer has updated."""
    for state in list(_running_states):
        parameter = state._parameter
        if parameter is Source.NO_GRADIENT or (
            isinstance(parameter, ParameterVersion) and not parameter.is_held_by(optimizer)
        ):
            continue
        state.end_step()


register_optimizer_step_post_hook(end_steps_of)


def parameter_of(x: Tensor) -> ParameterVersion | None:
    """Return one of the nearest parameters from which a tensor was computed, or None."""
    node: Any = x.grad_fn
    for _ in range(_MAX_NODES):
        if node is None:
            return None
        following = [each for each, _ in node.next_functions if each is not None]
        leaf = next((each.variable for each in following if type(each).__name__ == "AccumulateGrad"), None)
        if leaf is not None:
            while torch._C._functorch.is_functorch_wrapped_tensor(leaf):
                leaf = torch._C._functorch.get_unwrapped(leaf)
            return ParameterVersion(leaf)
        node = following[0] if following else None
    return None


@contextmanager
def preserve_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Replace the buffers of modules by copies, and restore them on exit."""
    owners = [owner for module in modules for owner in module.modules()]
    steps = [(owner, owner._step, owner._parameter) for owner in owners if isinstance(owner, RunningState)]
    own = [dict(owner._buffers) for owner in owners]
    for owner, copies in zip(owners, copy.deepcopy(own), strict=True):  # one call keeps shared buffers shared
        owner._buffers.update(copies)
    try:
        yield
    finally:
        for owner, buffers in zip(owners, own, strict=True):
            owner._buffers.clear()
            owner._buffers.update(buffers)
        for state, step, parameter in steps:
            state._step, state._parameter = step, parameter
