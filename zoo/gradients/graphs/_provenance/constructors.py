"""Constructors of tensors that torch shows to no mode."""

from typing import Any

import torch
from torch._functorch import eager_transforms

from zoo.gradients.graphs._provenance.patches import Function, Patch

FUNCTIONAL = "_wrap_functional_tensor"


def _follow(follower: Any, call: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return follower.follow_constructor(call, args, kwargs)


CONSTRUCTORS = [
    Patch(torch._C._nested, "nested_tensor", _follow),  # type: ignore[attr-defined]
    Patch(eager_transforms, FUNCTIONAL, _follow),
]
