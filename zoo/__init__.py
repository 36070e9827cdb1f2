"""REINFORCE as one reusable module, and models of attention, inference and control that are trained with it."""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
_PACKAGES = ("attention", "control", "data", "gradients", "inference", "plotting", "training")


def __getattr__(name: str) -> ModuleType:
    """Import packages on first access, so that ``import zoo`` alone imports none of their dependencies."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of the module and its packages."""
    return sorted([*globals(), *_PACKAGES])
