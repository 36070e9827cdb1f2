import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._compilation import uncompilable, uncompiled
from zoo.gradients._tensors import at_least_float32
from zoo.gradients.graphs._distributions import check_sample, tensors_of
from zoo.gradients.graphs._provenance.names import Names, quote_names
from zoo.gradients.graphs._provenance.provenance import Provenance
from zoo.gradients.graphs._provenance.torch_internals import untracked
from zoo.gradients.graphs.program import Program


class Sample(NamedTuple):
    """A stochastic node of one run."""

    value: Tensor
    log_prob: Tensor
    """Log-probability ``(*batch)``; under quadrature the log-weight of the quadrature node, with the gradient of the
    log-density."""
    parents: Names
    pathwise: bool
    """The gradient flows through the value, not through the density."""


class Cost(NamedTuple):
    """A cost node of one run."""

    value: Tensor
    """``(*batch)``, with its gradient; at least float32, and float64 for long integers and Python numbers."""
    parents: Names


class Run:
    """One run of a program: its samples, its costs, and the samples that each was computed from.

    Base class of the two interpreters, which sample and enumerate. Both implement ``draw_value``; the interpreter that
    enumerates also overrides ``weighted_log_prob`` and ``log_prob_is_valid``.
    """

    def __init__(self, batch_dims: int = 0):
        if batch_dims < 0:
            raise ValueError(f"batch_dims counts the leading dimensions that are independent, got {batch_dims}")
        self.batch_dims = batch_dims
        self.batch_shape: torch.Size | None = None
        self.samples: dict[str, Sample] = {}
        self.costs: dict[str, Cost] = {}
        self.provenance = Provenance()
        self._error: BaseException | None = None
        self._ancestors: dict[str, Names] = {}

    def draw_value(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        """Return the value of a random variable, and whether its gradient is pathwise."""
        raise NotImplementedError

    def weighted_log_prob(self, name: str, log_prob: Tensor) -> Tensor:
        """Return the log-probability ``(*batch)`` of a sample, or the log-weight of its quadrature node."""
        return log_prob

    def log_prob_is_valid(self, log_prob: Tensor) -> bool:
        return _all_finite(log_prob)

    @uncompilable
    def execute(self, program: Program, args: tuple[Any, ...]) -> None:
        # Inference tensors do not track version counters, by which in-place writes are detected.
        with torch.inference_mode(False), uncompiled, self.provenance:
            program(self, *args)
        if self._error is not None:  # the program caught an error of a statement, which is meant for its caller
            raise self._error
        if not self.samples:
            raise ValueError("the program sampled nothing: there is no expectation to differentiate")
        if not self.costs:
            raise ValueError("the program declared no cost: there is nothing to differentiate")

    def sample(self, name: str, distribution: Distribution) -> Tensor:
        value: Tensor = self._statement(self._sample, name, distribution)
        return value

    def cost(self, name: str, value: Tensor | float) -> None:
        self._statement(self._cost, name, value)

    def _statement(self, statement: Callable[..., Any], *args: Any) -> Any:
        """Run a statement with gradients enabled; keep its error, to raise it again if the program catches it."""
        if self._error is not None:
            raise self._error
        try:
            if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
                return statement(*args)
            with torch.inference_mode(False):  # this enables gradients, too
                return statement(*args)
        except BaseException as error:
            self._error = error
            raise

    def _sample(self, name: str, distribution: Distribution) -> Tensor:
        self._check_name(name)
        what = f"sample {name!r}"
        if not isinstance(distribution, Distribution):
            raise ValueError(f"{what} must have a distribution of torch.distributions, got {distribution!r}")
        self._check_batch(what, distribution.batch_shape)
        parameters = tensors_of(distribution)
        is_custom = parameters is None
        self._check_gradients(what, parameters or ())
        parameter_ids = {id(tensor) for tensor in parameters or ()}
        # For torch's own distributions, the parents of a sample are the samples that its parameters were computed from:
        # nothing else needs to be tracked.
        with nullcontext() if is_custom else self.provenance.paused():
            with self.provenance.ignoring_control_flow:  # a sampler's control flow influences its own value alone
                value, pathwise = self.draw_value(name, distribution)
            check_sample(what, distribution, value, pathwise)
            if is_custom:
                value = value.clone()  # its own storage, so that no other tensor gets its name
            log_density = distribution.log_prob(value)
            log_prob = self.weighted_log_prob(name, sum_event_dims(self.batch_dims, log_density))
            returned = value.clone()  # the program may write to it
        self._check_gradients(what, [log_density] if is_custom else ())
        parents = self.provenance.names_of([value, log_density] if is_custom else parameters)
        parents |= self.provenance.control_dependencies
        with untracked():
            if not self.log_prob_is_valid(log_prob):
                raise ValueError(f"the log-probability of {what} is not finite")
        for tensor in tensors_of(distribution) or ():
            if id(tensor) not in parameter_ids:  # computed for the density and cached by the distribution
                self.provenance.set_names(tensor, parents)
        self.provenance.set_names(value, {name})
        self.provenance.set_names(returned, {name})
        self._ancestors[name] = self.ancestors(parents)
        self.samples[name] = Sample(value, log_prob, parents, pathwise)
        return returned

    def _cost(self, name: str, value: Tensor | float) -> None:
        self._check_name(name)
        what = f"cost {name!r}"
        parents = self.provenance.names_of(value) | self.provenance.control_dependencies
        with self.provenance.paused():
            if not isinstance(value, Tensor):
                value = self._as_tensor(what, value)
            if value.is_complex():
                raise ValueError(f"{what} must be a real number, got {value.dtype}")
            # A copy, since the program may add to it in place; differences of large costs need its full precision.
            copied = value.to(at_least_float32(value.dtype, value.device), copy=True)
        with untracked():
            if copied.ndim != self.batch_dims:
                each = f" for each element of {self.batch_dims} batch dimensions" if self.batch_dims else ""
                raise ValueError(f"{what} must be one number{each}, got shape {tuple(copied.shape)}")
            self._check_batch(what, copied.shape)
            if not _all_finite(copied):
                raise ValueError(f"{what} is not finite")
        self.costs[name] = Cost(copied, parents)

    def mark_recorded_tensors(self) -> None:
        """Mark the recorded log-probabilities and costs, since a baseline may be computed from them."""
        for name, sample in self.samples.items():
            self.provenance.set_names(sample.log_prob, {name})
        for cost in self.costs.values():
            self.provenance.set_names(cost.value, cost.parents)

    def values(self) -> dict[str, Tensor]:
        return {name: sample.value for name, sample in self.samples.items()}

    def parents(self) -> dict[str, Names]:
        """Return the parents of each sample and cost, in topological order."""
        nodes: dict[str, Sample | Cost] = {**self.samples, **self.costs}
        return {name: node.parents for name, node in nodes.items()}

    def ancestors(self, parents: Names) -> Names:
        """Return the ancestors of a node with these parents."""
        return parents.union(*(self._ancestors[name] for name in parents))

    def _check_gradients(self, what: str, tensors: Iterable[Tensor]) -> None:
        if self.provenance.lost_gradients and any(map(self.provenance.has_lost_gradient, tensors)):
            raise ValueError(
                f"the distribution of {what} was computed under torch.no_grad() from tensors that require gradients, "
                "which are lost; construct it outside of no_grad() (only the sample statement may stand inside), or "
                "detach() its parameters if it is meant to be constant"
            )

    def _as_tensor(self, what: str, value: Any) -> Tensor:
        """Return a number as the cost of each batch element, on the device of the latest log-probability."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{what} must be a number, got {type(value).__name__}") from None
        latest = next(reversed(self.samples.values()), None)
        device = torch.get_default_device() if latest is None else latest.log_prob.device
        dtype = at_least_float32(torch.float64, device)
        return torch.tensor(number, dtype=dtype, device=device).expand(self.batch_shape or ())

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str):
            raise ValueError(f"the name of a sample or a cost must be a string, got {name!r}")
        if name in self.samples or name in self.costs:
            raise ValueError(f"the name {name!r} is used twice; names of samples and costs must be unique")

    def _check_batch(self, what: str, shape: torch.Size) -> None:
        if self.batch_shape is None and len(shape) >= self.batch_dims:
            self.batch_shape = shape[: self.batch_dims]
        if shape[: self.batch_dims] != self.batch_shape:
            raise ValueError(
                f"{what} has shape {tuple(shape)}, which does not begin with the {self.batch_dims} batch dimensions "
                f"{tuple(self.batch_shape or ())}"
            )


def check_sample_names(names: Iterable[str], runs: Iterable[Run]) -> None:
    """Raise an error if no run has a sample of one of the names.

    Nothing is checked if control flow depends on samples: further runs may have a sample of this name.
    """
    if any(run.provenance.control_dependencies for run in runs):
        return
    known = {name for run in runs for name in run.samples}
    if unknown := set(names) - known:
        raise ValueError(f"there is no sample {quote_names(unknown)}; there are {quote_names(known)}")


def sum_event_dims(batch_dims: int, value: Tensor) -> Tensor:
    """Sum over all but the batch dimensions."""
    return value.sum(list(range(batch_dims, value.ndim))) if value.ndim > batch_dims else value


def _all_finite(value: Tensor) -> bool:
    return math.isfinite(value.item()) if value.ndim == 0 else bool(value.isfinite().all())
