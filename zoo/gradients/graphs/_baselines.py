from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.gradients.baselines import Baseline, LeaveOneOutBaseline
from zoo.gradients.graphs._provenance.names import NO_NAMES, quote_names
from zoo.gradients.graphs._run import Run, check_sample_names

Values = Mapping[str, Tensor]


class BaselineWithContext(NamedTuple):
    """A ``LearnedBaseline`` with the function that computes its context from the values of a run.

    Mnih & Gregor, "Neural variational inference and learning in belief networks", 2014.

    Example:
        >>> from zoo.gradients import LearnedBaseline, trace
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     y = graph.sample("y", torch.distributions.Bernoulli(logits=theta - x))
        ...     graph.cost("f", (x + y - 0.5) ** 2)
        >>> net = LearnedBaseline(nn.Linear(1, 1))
        >>> baseline = BaselineWithContext(net, context=lambda values: values["x"].reshape(1))
        >>> graph = trace(program, torch.tensor(0.7, requires_grad=True))
        >>> graph.surrogate({"y": baseline}).backward()
    """

    baseline: Baseline
    context: Callable[[Values], Tensor]
    """Returns ``(*batch, features)``."""


BaselineLike = float | Tensor | Baseline | BaselineWithContext | Callable[[Values], Tensor | float]
"""Baseline of a sample: a number, a ``Baseline`` over runs, or a function of values that the sample does not influence.
"""


class _ConditioningSet(Values):
    """The values of a run, as passed to the function of a baseline.

    Which samples exist depends on the control flow of the run. A function that uses this, for example by ``len``,
    therefore gets the control dependencies of the run.
    """

    def __init__(self, run: Run):
        self._run = run
        self._control_dependencies = run.provenance.control_dependencies

    def __getitem__(self, name: str) -> Tensor:
        return (self._run.samples if name in self._run.samples else self._all_samples())[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._all_samples())

    def __len__(self) -> int:
        return len(self._all_samples())

    def __contains__(self, name: object) -> bool:
        return name in self._all_samples()

    def _all_samples(self) -> Mapping[str, Any]:
        self._run.provenance.add_control_dependencies(self._control_dependencies)
        return self._run.samples


def check_baselines(baselines: Mapping[str, BaselineLike], runs: Sequence[Run]) -> None:
    """Raise an error if a baseline is invalid, belongs to no sample, or learns and is used for two samples."""
    check_sample_names(baselines, runs)
    pathwise = {name for run in runs for name, sample in run.samples.items() if sample.pathwise}
    users: dict[Baseline, str] = {}
    for name, baseline in baselines.items():
        if isinstance(baseline, nn.Module) and not isinstance(baseline, Baseline):
            raise ValueError(
                f"the baseline of {name!r} must be a Baseline, got {type(baseline).__name__}; wrap a network as "
                "BaselineWithContext(LearnedBaseline(network), context)"
            )
        if name in pathwise:
            raise ValueError(f"sample {name!r} has a pathwise gradient; a baseline applies only to the score function")
        for part in learning_modules(baseline):
            if part in users:
                raise ValueError(
                    f"{users[part]!r} and {name!r} have the same {type(part).__name__} as a baseline: it would learn "
                    "from one before it is used on the other, and bias the gradient; use one instance for each"
                )
            users[part] = name


def learning_modules(baseline: BaselineLike) -> list[Baseline]:
    """Return the modules of a baseline that change when it is used."""
    module = baseline.baseline if isinstance(baseline, BaselineWithContext) else baseline
    parts = module.modules() if isinstance(module, Baseline) else ()
    return [part for part in parts if isinstance(part, Baseline) and type(part).update is not Baseline.update]


def evaluate_baseline(name: str, baseline: BaselineLike, runs: Sequence[Run], cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value of a baseline for each run, ``(runs, *batch)``, and the loss of its own parameters."""
    if not isinstance(baseline, Baseline | BaselineWithContext):
        value = _predictions(name, baseline if callable(baseline) else lambda _: baseline, runs)
        if value.requires_grad:
            raise ValueError(f"the baseline of {name!r} carries a gradient, which would reach the policy; detach it")
        if not bool(value.isfinite().all()):
            raise ValueError(f"the baseline of {name!r} is not finite")
        if value.shape[1:] not in ((), cost.shape[1:]):
            shapes = f"{tuple(value.shape[1:])}, which does not fit {tuple(cost.shape[1:])}"
            raise ValueError(f"the baseline of {name!r} has shape {shapes}")
        return value.reshape(-1, *value.shape[1:] or (1,) * (cost.ndim - 1)), cost.new_zeros(())
    module, function = (baseline, None) if isinstance(baseline, Baseline) else baseline
    present = torch.tensor([name in run.samples for run in runs], device=cost.device)
    # For leave-one-out, a run without the sample counts as one of cost 0; other baselines skip it.
    skips = not isinstance(module, LeaveOneOutBaseline)
    mask = present.reshape(-1, *(1,) * (cost.ndim - 1)).expand_as(cost) if skips else None
    context = None if function is None else _predictions(name, function, runs)
    try:
        value, loss = module(cost, context, mask)
    except ValueError as error:
        raise ValueError(f"the baseline of {name!r}: {error}") from None
    return value, loss


def _predictions(name: str, function: Callable[[Values], Any], runs: Sequence[Run]) -> Tensor:
    """Evaluate a function of values for each run, ``(runs, ...)``; 0 where a run lacks the sample."""
    outputs = [_predict(name, function, run) if name in run.samples else None for run in runs]
    blank = torch.zeros_like(next(output for output in outputs if output is not None))
    try:
        return torch.stack([blank if output is None else output for output in outputs])
    except RuntimeError:
        shapes = quote_names({str(tuple(output.shape)) for output in outputs if output is not None})
        raise ValueError(f"the baseline of {name!r} has different shapes in the runs: {shapes}") from None


def _predict(name: str, function: Callable[[Values], Any], run: Run) -> Tensor:
    """Evaluate a function of a run's values; raise an error if it uses descendants of the sample."""
    tracker, values = run.provenance, _ConditioningSet(run)
    saved, tracker.control_dependencies = tracker.control_dependencies, NO_NAMES
    run.mark_recorded_tensors()
    try:
        with tracker:
            output = function(values)
            used = tracker.names_of(output) | tracker.control_dependencies
    except KeyError as error:
        raise ValueError(f"the baseline of {name!r} uses {error}, which does not exist in every run") from error
    finally:
        tracker.control_dependencies = saved
    if not isinstance(output, Tensor | float | int):
        raise ValueError(f"the baseline of {name!r} must be a tensor or a number, got {type(output).__name__}")
    descendants = {other for other in used if name in run.ancestors(frozenset({other}))}
    if descendants:
        others = f"{quote_names(descendants)}, which {name!r} influences"
        forbidden = f"{name!r} itself" if name in descendants else others
        raise ValueError(f"the baseline of {name!r} uses {forbidden}: the gradient would be biased")
    return torch.as_tensor(output)
