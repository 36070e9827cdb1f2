"""REINFORCE as one reusable module, at work in attention, inference and control."""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
PACKAGES = ("attention", "control", "data", "gradients", "inference", "plotting", "training")


def __getattr__(name: str) -> ModuleType:
    """Import a package when it is first asked for: ``import zoo`` alone loads none of what they need."""
    if name in PACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of the packages too."""
    return sorted([*globals(), *PACKAGES])
