from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import ReferenceType, WeakSet, ref

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from zoo.gradients._compilation import uncompilable

FARTHEST = 50  # nodes of a graph that are looked through for a parameter


class Learner(nn.Module):
    """Module that may learn from call to call, as running means do.

    Used several times in one step, say once for each time step, it would know from its first use what the samples of
    the second have cost, and bias the gradient. So inside a ``Reinforce`` its value stays what it was at the first use,
    until the parameters have moved: it advances once a step, whether it is called once or often, or again by
    ``torch.utils.checkpoint``. Its buffers hold what has been learned already.
    """

    once_a_step = False
    """Keep the value until the step ends."""
    _step: Any = None
    """What the value is made of while a step lasts; None outside of one."""

    @property
    def learns(self) -> bool:
        """Whether a call changes what later calls give."""
        return True

    def end_step(self) -> None:
        """Let the value be what has been learned."""
        vars(self)["_step"] = None  # past Module.__setattr__, which takes ten times as long

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.once_a_step:  # a copy, or read from a file
            _learners.add(self)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any) -> None:
        self.end_step()
        super()._load_from_state_dict(state_dict, *args)


_learners: "WeakSet[Learner]" = WeakSet()


def once_a_step(module: nn.Module) -> bool:
    """Let all parts of a module that learn advance once a step, and return whether there are any."""
    learners = [part for part in module.modules() if isinstance(part, Learner) and part.learns]
    for learner in learners:
        learner.once_a_step = True
        _learners.add(learner)
    return bool(learners)


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


@uncompilable
def end_all_steps(*_: Any) -> None:
    """End the step of all that learns, when an optimizer has taken it."""
    for learner in list(_learners):
        learner.end_step()


register_optimizer_step_post_hook(end_all_steps)


class Parameter(NamedTuple):
    """A parameter as it was when a step began."""

    leaf: "ReferenceType[Tensor]"
    version: int

    @property
    def moved(self) -> bool:
        """Whether it has been changed in place, or replaced by another, as loops without an optimizer do."""
        leaf = self.leaf()
        return leaf is None or leaf._version != self.version


def parameter_of(x: Tensor) -> Parameter | None:
    """Parameter that a tensor was computed from, the first that is met; None if none is near."""
    node: Any = x.grad_fn
    for _ in range(FARTHEST):
        if node is None:
            return None
        if (leaf := getattr(node, "variable", None)) is not None:
            return Parameter(ref(leaf), leaf._version)
        node = next((following for following, _ in node.next_functions if following is not None), None)
    return None
