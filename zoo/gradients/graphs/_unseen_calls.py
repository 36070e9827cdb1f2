import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._functorch import eager_transforms

Function = Callable[..., Any]
Follow = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]
NESTED = (torch._C._nested, "nested_tensor")  # type: ignore[attr-defined]
FUNCTIONAL = (eager_transforms, "_wrap_functional_tensor")


@contextmanager
def constructors_through(follow: Follow) -> Iterator[None]:
    """Let constructors of tensors that torch shows to no mode pass through a function; in this thread alone.

    Args:
        follow: is given the constructor and its arguments.
    """
    thread = threading.get_ident()
    own = [getattr(owner, name) for owner, name in (NESTED, FUNCTIONAL)]
    try:
        for (owner, name), call in zip((NESTED, FUNCTIONAL), own, strict=True):
            setattr(owner, name, _through(follow, call, thread))
        yield
    finally:
        for (owner, name), call in zip((NESTED, FUNCTIONAL), own, strict=True):
            setattr(owner, name, call)


def _through(follow: Follow, call: Function, thread: int) -> Function:
    return lambda *args, **kwargs: (
        follow(call, args, kwargs) if threading.get_ident() == thread else call(*args, **kwargs)
    )
