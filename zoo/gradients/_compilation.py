import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def uncompilable(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let ``torch.compile`` call a function as it is, and compile what lies around it.

    As ``torch.compiler.disable``, which loads the compiler even where it is not used.
    """
    disabled: list[Callable[Parameters, Result]] = []

    @functools.wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    called._torchdynamo_disable = True  # type: ignore[attr-defined]
    return called
