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

FARTHEST = 50  # nodes of a graph that are looked through for a parameter


class Source(Enum):
    """What the log-probabilities of a step were computed from, where that is no parameter that is known."""

    CONSTANTS = "constants"
    """So far; no optimizer ends the step, as a later call may have the same signal and a gradient."""
    UNKNOWN = "unknown"
    """The step of any optimizer may be that of their parameters."""


class Parameter:
    """A parameter that the log-probabilities of a step were computed from, as it was when the step began."""

    def __init__(self, leaf: Tensor):
        self.leaf = ref(leaf)
        self.version = leaf._version

    def __reduce__(self) -> tuple[type[Source], tuple[str]]:
        return Source, (Source.CONSTANTS.value,)  # a copy may be that of an agent, with parameters of its own

    @property
    def moved(self) -> bool:
        """Whether it has been changed in place, or replaced by another, as loops without an optimizer do."""
        leaf = self.leaf()
        return leaf is None or leaf._version != self.version

    def is_held_by(self, optimizer: Optimizer) -> bool:
        """Whether it is among the parameters that an optimizer moves."""
        leaf = self.leaf()
        return any(x is leaf for group in optimizer.param_groups for x in group["params"])


class Learner(nn.Module):
    """Module that may learn from call to call, as running means do.

    Used several times in one step, say once for each time step, it would know from its first use what the samples of
    the second have cost, and bias the gradient. So inside a ``Reinforce`` its value stays what it was at the first use,
    until the parameters have moved: it advances once a step, whether it is called once or often, or again by
    ``torch.utils.checkpoint``. Its buffers hold what has been learned already.

    The step ends when an optimizer that holds the parameter takes its own, when the parameter is seen to have been
    changed or replaced, or another state is loaded. Neither a call without a gradient ends it, nor the optimizer of
    something else, nor a cast: later calls may have the same signal.
    """

    once_a_step = False
    """Keep the value until the step ends."""
    _step: Any = None
    """What the value is made of while a step lasts; None outside of one."""
    _parameter: Parameter | Source | None = None
    """What the step's log-probabilities were computed from; None before the first."""

    @property
    def learns(self) -> bool:
        """Whether a call changes what later calls give."""
        return True

    def end_step(self) -> None:
        """Let the value be what has been learned."""
        vars(self).update(_step=None, _parameter=None)  # past Module.__setattr__, which takes ten times as long

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.once_a_step:  # a copy, or read from a file
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
    """Let all parts of a module that learn advance once a step, and return them."""
    learners = [part for part in module.modules() if isinstance(part, Learner) and part.learns]
    for learner in learners:
        learner.once_a_step = True
        _learners.add(learner)
    return learners


def end_step(module: nn.Module) -> None:
    """End the step of all parts of a module that learn."""
    if all(learner._step is None for learner in _learners):  # which is found sooner than the parts of a large module
        return
    for part in module.modules():
        if isinstance(part, Learner):
            part.end_step()


def in_backward() -> bool:
    """Whether a backward pass is under way, as where a checkpoint computes something again: of the same step."""
    return torch._C._current_graph_task_id() != -1


def begin_or_continue_step(learners: Sequence[Learner], log_prob: Tensor) -> None:
    """End the step before if the parameters have moved; note what the log-probabilities of this one depend on.

    Args:
        learners: that will learn from a call.
        log_prob: of the call.
    """
    if torch.compiler.is_compiling():  # a compiler has no graphs to look at
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
    else:  # what a checkpoint recomputes may depend on copies of parameters
        source = Source.UNKNOWN if recomputed else parameter_of(log_prob) or Source.UNKNOWN
    for learner in unknown:
        vars(learner)["_parameter"] = source


@uncompilable
def end_steps_of(optimizer: Optimizer, *_: Any) -> None:
    """End the step of all that learns from log-probabilities of parameters that an optimizer has moved."""
    for learner in list(_learners):
        parameter = learner._parameter
        if parameter is Source.CONSTANTS or (isinstance(parameter, Parameter) and not parameter.is_held_by(optimizer)):
            continue
        learner.end_step()


register_optimizer_step_post_hook(end_steps_of)


def parameter_of(x: Tensor) -> Parameter | None:
    """Parameter that a tensor was computed from, one of those that are met first; None if none is near."""
    node: Any = x.grad_fn
    for _ in range(FARTHEST):
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
    """Let modules work on copies of their buffers, and give them their own back, untouched."""
    owners = [owner for module in modules for owner in module.modules()]
    steps = [(owner, owner._step, owner._parameter) for owner in owners if isinstance(owner, Learner)]
    own = [dict(owner._buffers) for owner in owners]
    for owner, copies in zip(owners, copy.deepcopy(own), strict=True):  # at once: what is shared stays shared
        owner._buffers.update(copies)
    try:
        yield
    finally:
        for owner, buffers in zip(owners, own, strict=True):
            owner._buffers.clear()
            owner._buffers.update(buffers)
        for learner, step, parameter in steps:
            learner._step, learner._parameter = step, parameter
