from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytorch_lightning as pl

from zoo.training._fit import Loaders


@runtime_checkable
class Experiment(Protocol):
    """A model together with its data or environment: how it is trained, evaluated and reported.

    ``zoo train`` and ``zoo evaluate`` know experiments by this protocol alone. An implementation derives from it and
    thereby inherits the defaults.

    Example:
        >>> class Demo(Experiment):
        ...     name, monitor, monitor_mode = "demo", None, "min"
        ...
        ...     def describe(self, metrics):
        ...         return f"error {metrics['error']:.0%}"
        >>> Demo().describe({"error": 0.25}), Demo().callbacks(), Demo().exit_reason
        ('error 25%', [], 'all epochs done')
    """

    name: str
    """Name of the data, environment or program, for run records and tables."""
    module: pl.LightningModule
    loaders: Loaders
    monitor: str | None
    """Validation metric that selects the best checkpoint; None for no selection."""
    monitor_mode: str
    """``min`` or ``max``."""

    def callbacks(self) -> list[pl.Callback]:
        """Return additional callbacks of the trainer; none by default."""
        return []

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Evaluate the result of a training, write its figures to the run folder, and return metrics by name."""
        ...

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Evaluate a checkpoint, possibly more thoroughly than ``report``, and return metrics by name."""
        ...

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return metrics of ``report`` or ``evaluate`` as text for the terminal."""
        ...

    def render(self, checkpoint: Path, path: Path) -> None:
        """Write an animation of an episode to a file.

        Raises:
            ValueError: the model does not act in an environment.
        """
        raise ValueError("this model plays no episodes: remove render")

    @property
    def exit_reason(self) -> str:
        """Why a training that was not interrupted ended."""
        return "all epochs done"
