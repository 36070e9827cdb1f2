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

_MAX_NODES = 50  # nodes of the autograd graph that are searched for a parameter


class NoParameter(Enum):
    """Reason why no parameter is known whose update would end the step; see ``RunningState``."""

    NO_GRADIENT = "log_prob has no gradient"  # a later call in the step may have one, so no optimizer ends the step
    NOT_FOUND = "there is none in the graph of log_prob"  # any optimizer may update it, so each ends the step


class ParameterVersion:
    """A parameter from which ``log_prob`` was computed, and its version counter at the beginning of the step."""

    def __init__(self, leaf: Tensor):
        self.leaf = ref(leaf)
        self.version = leaf._version

    def __reduce__(self) -> tuple[type[NoParameter], tuple[str]]:
        return NoParameter, (NoParameter.NO_GRADIENT.value,)  # a copy of the model has other parameters

    @property
    def is_modified(self) -> bool:
        """Whether the parameter was changed in place or freed, as in loops without an optimizer."""
        leaf = self.leaf()
        return leaf is None or leaf._version != self.version

    def is_held_by(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates the parameter."""
        leaf = self.leaf()
        return any(x is leaf for group in optimizer.param_groups for x in group["params"])


class RunningState(nn.Module):
    """Module whose calls return a value computed from its buffers, such as a running mean, and update the buffers.

    A ``Reinforce`` may be called several times per step of the optimizer, for example once per time step. The samples
    of one call influence the signals of the others, so a value that was updated by one call would bias the next. Within
    a step, all calls therefore return the value from the beginning of the step; what they add to the buffers counts
    from the next step on.

    A step ends when an optimizer updates the parameter from which ``log_prob`` was computed, when this parameter is
    changed or replaced in another way, or when another state is loaded. Other optimizers do not end it, unless the
    graph of ``log_prob`` contains no parameter; then every optimizer does. Calls without a gradient and casts do not
    end it.
    """

    frozen_within_step = False
    _step_start: Any = None  # state at the beginning of the step; None between steps
    _parameter: ParameterVersion | NoParameter | None = None  # whose update ends the step; None between steps

    @property
    def updates_buffers(self) -> bool:
        """Whether calls update buffers."""
        return True

    def end_step(self) -> None:
        """End the step: the next call returns a value computed from the updated buffers."""
        vars(self).update(_step_start=None, _parameter=None)  # Module.__setattr__ takes ten times as long

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.frozen_within_step:  # copied or unpickled
            running_states.add(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningState":
        super()._apply(fn, recurse)
        vars(self)["_step_start"] = tree_map_only(Tensor, fn, self._step_start)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any) -> None:
        before = None if self._step_start is None else copy.deepcopy(self._buffers)
        super()._load_from_state_dict(state_dict, *args)
        if before is not None and not all(map(is_same, before.values(), self._buffers.values())):
            self.end_step()


def is_same(x: Tensor | None, y: Tensor | None) -> bool:
    """Whether two buffers hold the same numbers."""
    if x is None or y is None:
        return x is y
    return x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)


running_states: "WeakSet[RunningState]" = WeakSet()


def freeze_within_step(module: nn.Module) -> list[RunningState]:
    """Freeze the values of all running states in a module within each step, and return these states."""
    states = [part for part in module.modules() if isinstance(part, RunningState) and part.updates_buffers]
    for state in states:
        state.frozen_within_step = True
        running_states.add(state)
    return states


def end_step(module: nn.Module) -> None:
    """End the step of all states in a module."""
    if all(state._step_start is None for state in running_states):  # faster than searching a large module
        return
    for part in module.modules():
        if isinstance(part, RunningState):
            part.end_step()


def in_backward() -> bool:
    """Whether a backward pass is running, in which ``torch.utils.checkpoint`` may repeat calls of the step."""
    from zoo.gradients.graphs._provenance import torch_internals  # importing it imports this module

    return torch_internals.current_graph_task_id() != -1


def begin_or_continue_step(states: Sequence[RunningState], log_prob: Tensor) -> None:
    """End the previous step if its parameter has changed; find the parameter of a new step."""
    if torch.compiler.is_compiling():  # log_prob has no autograd graph to search while it is traced
        for state in states:
            vars(state)["_parameter"] = NoParameter.NOT_FOUND
        return
    recomputed = in_backward()
    for state in states:
        if not recomputed and isinstance(state._parameter, ParameterVersion) and state._parameter.is_modified:
            state.end_step()
    unknown = [state for state in states if state._parameter in (None, NoParameter.NO_GRADIENT)]
    if not unknown:
        return
    parameter: ParameterVersion | NoParameter = NoParameter.NOT_FOUND
    if not log_prob.requires_grad:
        parameter = NoParameter.NO_GRADIENT
    elif not recomputed:  # torch.utils.checkpoint may compute log_prob from copies of the parameters
        parameter = find_parameter(log_prob)
    for state in unknown:
        vars(state)["_parameter"] = parameter


@uncompilable
def end_steps_of(optimizer: Optimizer, *_: Any) -> None:
    """End the steps whose parameter this optimizer has updated, and those whose parameter was not found."""
    for state in list(running_states):
        parameter = state._parameter
        if parameter is NoParameter.NO_GRADIENT or (
            isinstance(parameter, ParameterVersion) and not parameter.is_held_by(optimizer)
        ):
            continue
        state.end_step()


register_optimizer_step_post_hook(end_steps_of)


def find_parameter(x: Tensor) -> ParameterVersion | NoParameter:
    """Return a parameter from which a tensor was computed, close to it in the autograd graph."""
    from zoo.gradients.graphs._provenance.shadow_memory import unwrap  # importing it imports this module

    node: Any = x.grad_fn
    for _ in range(_MAX_NODES):
        if node is None:
            break
        inputs = [each for each, _ in node.next_functions if each is not None]
        leaf = next((each.variable for each in inputs if type(each).__name__ == "AccumulateGrad"), None)
        if leaf is not None:
            return ParameterVersion(unwrap(leaf))
        node = inputs[0] if inputs else None
    return NoParameter.NOT_FOUND


@contextmanager
def preserve_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Replace the buffers of modules by copies, and restore the originals on exit."""
    owners = [owner for module in modules for owner in module.modules()]
    steps = [(owner, owner._step_start, owner._parameter) for owner in owners if isinstance(owner, RunningState)]
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
            state._step_start, state._parameter = step, parameter
