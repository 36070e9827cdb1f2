from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.gradients.baselines import Baseline, LeaveOneOutBaseline
from zoo.gradients.graphs._provenance.names import NO_NAMES, quote_names
from zoo.gradients.graphs.program import Run, check_known

Values = Mapping[str, Tensor]


class BaselineWithContext(NamedTuple):
    """A learned baseline together with what it may look at."""

    baseline: Baseline
    context: Callable[[Values], Tensor]
    """Of the values of a run's variables; ``(*batch, features)``."""


Guess = float | Tensor | Baseline | BaselineWithContext | Callable[[Values], Tensor | float]
"""A baseline of one variable: a number, a ``Baseline`` over runs, or a function of variables it does not influence."""


class Visible(Mapping[str, Tensor]):
    """Values of a run's variables; which of them there are is told by all values that steered the run.

    Args:
        run: whose values are looked at while its provenance is entered.
    """

    def __init__(self, run: Run):
        self.run = run
        self.steered_by = run.provenance.escaped

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.run.samples:
            self._tell_which()
        return self.run.samples[name].value

    def __iter__(self) -> Iterator[str]:
        self._tell_which()
        return iter(self.run.samples)

    def __len__(self) -> int:
        self._tell_which()
        return len(self.run.samples)

    def __contains__(self, name: object) -> bool:
        self._tell_which()
        return name in self.run.samples

    def _tell_which(self) -> None:
        self.run.provenance.escape(self.steered_by)


def check_guesses(guesses: Mapping[str, Guess], runs: Sequence[Run]) -> None:
    """Raise an error if a baseline has no variable, or learns for one what it then knows of another."""
    check_known(guesses, runs)
    pathwise = {name for run in runs for name, sample in run.samples.items() if sample.pathwise}
    users: dict[Baseline, str] = {}
    for name, given in guesses.items():
        if isinstance(given, nn.Module) and not isinstance(given, Baseline):
            raise ValueError(
                f"the baseline of {name!r} must be a Baseline, got {type(given).__name__}; a network goes into "
                "BaselineWithContext(LearnedBaseline(network), context)"
            )
        if name in pathwise:
            raise ValueError(f"sample {name!r} has a pathwise gradient, and so no score function for a baseline")
        for part in learning_parts(given):
            if part in users:
                raise ValueError(
                    f"{users[part]!r} and {name!r} have the same {type(part).__name__} as a baseline, which learns "
                    "from one before it is used on the other, and biases the gradient; make a separate one for each"
                )
            users[part] = name


def learning_parts(given: Guess) -> list[Baseline]:
    """Find what a baseline changes when it is used."""
    baseline = given.baseline if isinstance(given, BaselineWithContext) else given
    parts = baseline.modules() if isinstance(baseline, Baseline) else ()
    return [part for part in parts if isinstance(part, Baseline) and type(part).update is not Baseline.update]


def guess(name: str, given: Guess, runs: Sequence[Run], cost: Tensor) -> tuple[Tensor, Tensor]:
    """Find the value of a baseline for each run, ``(runs, *batch)``, and the loss of its own parameters.

    Raises:
        ValueError: it uses what its variable influences, carries a gradient, is not finite, or has a shape that does
            not fit.
    """
    if not isinstance(given, Baseline | BaselineWithContext):
        function = given if callable(given) else lambda _: given
        value = answers(name, function, runs)
        if value.requires_grad:
            raise ValueError(f"the baseline of {name!r} carries a gradient, which would reach the policy; detach it")
        if not bool(value.isfinite().all()):
            raise ValueError(f"the baseline of {name!r} is not finite")
        if value.shape[1:] not in ((), cost.shape[1:]):
            shapes = f"{tuple(value.shape[1:])}, which does not fit {tuple(cost.shape[1:])}"
            raise ValueError(f"the baseline of {name!r} has shape {shapes}")
        return value.reshape(-1, *value.shape[1:] or (1,) * (cost.ndim - 1)), cost.new_zeros(())
    baseline, context = (given, None) if isinstance(given, Baseline) else given
    present = torch.tensor([name in run.samples for run in runs], device=cost.device)
    # For leave-one-out a run without the variable is one that cost nothing; others learn from the rest alone.
    mask = (
        None
        if isinstance(baseline, LeaveOneOutBaseline)
        else present.reshape(-1, *(1,) * (cost.ndim - 1)).expand_as(cost)
    )
    seen = None if context is None else answers(name, context, runs)
    try:
        value, loss = baseline(cost, seen, mask)
    except ValueError as error:
        raise ValueError(f"the baseline of {name!r}: {error}") from None
    return value, loss


def answers(name: str, function: Callable[[Values], Any], runs: Sequence[Run]) -> Tensor:
    """Compute from each run's values what a baseline is made of, ``(runs, ...)``; 0 where it has no variable."""
    found = [ask(name, function, run) if name in run.samples else None for run in runs]
    blank = torch.zeros_like(next(answer for answer in found if answer is not None))
    try:
        return torch.stack([blank if answer is None else answer for answer in found])
    except RuntimeError:
        shapes = quote_names({str(tuple(answer.shape)) for answer in found if answer is not None})
        raise ValueError(f"the baseline of {name!r} has not one shape in all runs, but {shapes}") from None


def ask(name: str, function: Callable[[Values], Any], run: Run) -> Tensor:
    """Compute from a run's values what a baseline is made of, and see that it is allowed to use them."""
    tracker, visible = run.provenance, Visible(run)
    kept, tracker.escaped = tracker.escaped, NO_NAMES
    run.mark_record()
    try:
        with tracker:
            answer = function(visible)
            used = tracker.of(answer) | tracker.escaped
    except KeyError as error:
        raise ValueError(f"the baseline of {name!r} looks for {error}, which is not there in every run") from error
    finally:
        tracker.escaped = kept
    if not isinstance(answer, Tensor | float | int):
        raise ValueError(f"the baseline of {name!r} must be a tensor or a number, got {type(answer).__name__}")
    forbidden = {other for other in used if name in run.ancestors(frozenset({other}))}
    if name in forbidden:
        raise ValueError(f"the baseline of {name!r} uses {name!r} itself: the gradient would be biased")
    if forbidden:
        others = f"{quote_names(forbidden)}, which {name!r} influences"
        raise ValueError(f"the baseline of {name!r} uses {others}: the gradient would be biased")
    return torch.as_tensor(answer)
