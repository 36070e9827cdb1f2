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
    """Where the log-probabilities of a step come from if no parameter is known."""

    CONSTANTS = "constants"  # no optimizer ends the step: a later call may have the same signal and a gradient
    UNKNOWN = "unknown"  # any optimizer may hold the parameters


class Parameter:
    """Parameter from which the log-probabilities of a step were computed, at the beginning of the step."""

    def __init__(self, leaf: Tensor):
        self.leaf = ref(leaf)
        self.version = leaf._version

    def __reduce__(self) -> tuple[type[Source], tuple[str]]:
        return Source, (Source.CONSTANTS.value,)  # a copied agent has parameters of its own

    @property
    def moved(self) -> bool:
        """Whether it was changed in place or replaced, as loops without an optimizer do."""
        leaf = self.leaf()
        return leaf is None or leaf._version != self.version

    def is_held_by(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates it."""
        leaf = self.leaf()
        return any(x is leaf for group in optimizer.param_groups for x in group["params"])


class Learner(nn.Module):
    """Module that learns from its calls, such as a running mean.

    Called several times in one step, say once per time step, it would use in the second call what it learned in the
    first about samples that the second shares, and bias the gradient. In a ``Reinforce`` its value is therefore that of
    the beginning of the step until the parameters change; its buffers already hold what was learned since.

    A step ends when an optimizer that holds the parameter takes its step, when the parameter is seen to be changed or
    replaced, or when another state is loaded. A call without a gradient, another optimizer, or a cast does not end it:
    later calls may have the same signal.
    """

    once_a_step = False  # keep the value until the step ends
    _step: Any = None  # state at the beginning of the step; None outside of one
    _parameter: Parameter | Source | None = None  # source of the step's log-probabilities; None before the first

    @property
    def learns(self) -> bool:
        """Whether a call changes the values of later calls."""
        return True

    def end_step(self) -> None:
        """Advance the value to what was learned."""
        vars(self).update(_step=None, _parameter=None)  # Module.__setattr__ takes ten times as long

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.once_a_step:  # a copy, or unpickled
            _learners.add(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Learner":
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


_learners: "WeakSet[Learner]" = WeakSet()


def once_a_step(module: nn.Module) -> list[Learner]:
    """Make all learners in a module advance once per step, and return them."""
    learners = [part for part in module.modules() if isinstance(part, Learner) and part.learns]
    for learner in learners:
        learner.once_a_step = True
        _learners.add(learner)
    return learners


def end_step(module: nn.Module) -> None:
    """End the step of all learners in a module."""
    if all(learner._step is None for learner in _learners):  # faster than a search in a large module
        return
    for part in module.modules():
        if isinstance(part, Learner):
            part.end_step()


def in_backward() -> bool:
    """Whether a backward pass is running, as when a checkpoint recomputes part of the same step."""
    return torch._C._current_graph_task_id() != -1


def begin_or_continue_step(learners: Sequence[Learner], log_prob: Tensor) -> None:
    """End the previous step if its parameter has changed; record the parameter that ``log_prob`` depends on."""
    if torch.compiler.is_compiling():  # there is no graph
        for learner in learners:
            vars(learner)["_parameter"] = Source.UNKNOWN
        return
    recomputed = in_backward()
    for learner in learners:
        if not recomputed and isinstance(learner._parameter, Parameter) and learner._parameter.moved:
            learner.end_step()
    unknown = [learner for learner in learners if learner._parameter in (None, Source.CONSTANTS)]
    if not unknown:
        return
    if not log_prob.requires_grad:
        source: Parameter | Source = Source.CONSTANTS
    else:  # recomputed values may depend on copies of parameters
        source = Source.UNKNOWN if recomputed else parameter_of(log_prob) or Source.UNKNOWN
    for learner in unknown:
        vars(learner)["_parameter"] = source


@uncompilable
def end_steps_of(optimizer: Optimizer, *_: Any) -> None:
    """End the step of learners whose parameter an optimizer has updated."""
    for learner in list(_learners):
        parameter = learner._parameter
        if parameter is Source.CONSTANTS or (isinstance(parameter, Parameter) and not parameter.is_held_by(optimizer)):
            continue
        learner.end_step()


register_optimizer_step_post_hook(end_steps_of)


def parameter_of(x: Tensor) -> Parameter | None:
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
            return Parameter(leaf)
        node = following[0] if following else None
    return None


@contextmanager
def preserve_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Replace the buffers of modules by copies, and restore them on exit."""
    owners = [owner for module in modules for owner in module.modules()]
    steps = [(owner, owner._step, owner._parameter) for owner in owners if isinstance(owner, Learner)]
    own = [dict(owner._buffers) for owner in owners]
    for owner, copies in zip(owners, copy.deepcopy(own), strict=True):  # one call keeps shared buffers shared
        owner._buffers.update(copies)
    try:
        yield
    finally:
        for owner, buffers in zip(owners, own, strict=True):
            owner._buffers.clear()
            owner._buffers.update(buffers)
        for learner, step, parameter in steps:
            learner._step, learner._parameter = step, parameter
