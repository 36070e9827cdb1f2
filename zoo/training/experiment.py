from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pytorch_lightning as pl


class Loaders(NamedTuple):
    """Factories of a run's batches: functions of the rank and the number of ranks.

    Example:
        >>> import torch
        >>> batches = torch.arange(6.0).split(2)
        >>> loaders = Loaders(train=lambda rank, ranks: batches[rank::ranks], validation=None)
        >>> loaders.train(0, 2)
        (tensor([0., 1.]), tensor([4., 5.]))
    """

    train: Callable[[int, int], Iterable[Any]]
    validation: Callable[[int, int], Iterable[Any]] | None
    max_epochs: int | None = None
    """Number of epochs if the configuration leaves ``max_epochs`` open."""
    fraction_done: Callable[[], float] | None = None
    """Returns the fraction of the training that is done, where the number of batches is unknown."""
    supports_mid_epoch_resume: bool = True
    """Whether a training can be resumed within an epoch, or only between epochs."""
    single_process: bool = False
    """Whether batches depend on the policy: several processes would then train different models."""


@runtime_checkable
class Experiment(Protocol):
    """A model together with its data or environment: how it is trained, evaluated and reported.

    ``zoo train`` and ``zoo evaluate`` use only this protocol. An implementation derives from it and inherits the
    defaults.

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
    needs_initial_weights: bool = False
    """Whether a training has to start from the weights of another one, ``init_from=``."""

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
