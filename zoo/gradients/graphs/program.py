import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._compilation import uncompilable, uncompiled
from zoo.gradients._tensors import at_least_single
from zoo.gradients.graphs._distributions import check_sample, tensors_of
from zoo.gradients.graphs._provenance.names import Names, quote_names
from zoo.gradients.graphs._provenance.provenance import Provenance, untracked

Program = Callable[..., Any]
"""A function of a ``Graph`` and any other arguments, which samples and names its costs."""


class Graph(Protocol):
    """What a program is handed: the random variables it draws and the costs it pays, by name."""

    def sample(self, name: str, distribution: Distribution) -> Tensor:
        """Draw a random variable. Its elements together are one node."""
        ...

    def cost(self, name: str, value: Tensor | float) -> None:
        """Add a cost to what is to be minimised."""
        ...


class Sample(NamedTuple):
    """A random variable of one run of a program."""

    value: Tensor
    log_prob: Tensor
    """Summed over all but the batch dimensions, in nats."""
    parents: Names
    """Variables that its distribution was computed from."""
    pathwise: bool
    """The gradient flows through the value, not through the density."""


class Cost(NamedTuple):
    """A cost of one run of a program."""

    value: Tensor
    """``(*batch)``, with its gradient; in its own precision, but float32 at least, and float64 for long integers and
    Python's numbers."""
    parents: Names
    """Variables that it was computed from."""


class Run:
    """One run of a program: what it sampled, what it cost, and what each was computed from.

    Both interpreters of a program build on it; they differ in how a value is found.

    Args:
        batch_dims: leading dimensions that are independent.
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
        self._lineage: dict[str, Names] = {}

    def find(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        """Find a value for a random variable, and tell whether the gradient flows through it."""
        raise NotImplementedError

    def log_weight(self, name: str, log_prob: Tensor) -> Tensor:
        """Tell what is kept of a variable's log-probability, ``(*batch)``."""
        return log_prob

    def possible(self, log_prob: Tensor) -> bool:
        """Tell whether a log-probability is one that can be met."""
        return is_finite(log_prob)

    @uncompilable
    def execute(self, program: Program, args: tuple[Any, ...]) -> None:
        """Run the program once."""
        # In inference mode torch does not tell what is written to.
        with torch.inference_mode(False), uncompiled, self.provenance:
            program(self, *args)
        if self._error is not None:  # the program has caught what was not meant for it
            raise self._error
        if not self.samples:
            raise ValueError("the program sampled nothing: there is no expectation to differentiate")
        if not self.costs:
            raise ValueError("the program named no cost: there is nothing to differentiate")

    def sample(self, name: str, distribution: Distribution) -> Tensor:
        """Draw a random variable. Its elements together are one node.

        Raises:
            ValueError: the name is taken; the value has another shape than the distribution, whose shape must begin
                with the batch dimensions; the density is not finite there, or has not the whole gradient.
        """
        value: Tensor = self._statement(self._sample, name, distribution)
        return value

    def _sample(self, name: str, distribution: Distribution) -> Tensor:
        self._check_name(name)
        what = f"sample {name!r}"
        if not isinstance(distribution, Distribution):
            raise ValueError(f"{what} must have a distribution of torch.distributions, got {distribution!r}")
        self._check_batch(what, distribution.batch_shape)
        known = tensors_of(distribution)
        self._check_gradients(what, known or ())
        seen = {id(tensor) for tensor in known or ()}
        with nullcontext() if known is None else self.provenance.paused():
            with self.provenance.escapes_suppressed:  # what the sampler looks at steers its value alone
                value, pathwise = self.find(name, distribution)
            check_sample(what, distribution, value, pathwise)
            if known is None:
                value = value.clone()  # memory of its own, so that a mark on it is on nothing else
            log_prob = distribution.log_prob(value)
            summed = self.log_weight(name, sum_to(self.batch_dims, log_prob))
            handed_out = value.clone()  # may be written to
        self._check_gradients(what, [log_prob] if known is None else ())
        parents = self.provenance.of([value, log_prob] if known is None else known) | self.provenance.escaped
        with untracked():
            if not self.possible(summed):
                raise ValueError(f"the log-probability of {what} is not finite")
        for tensor in tensors_of(distribution) or ():
            if id(tensor) not in seen:  # computed for the density, and kept by the distribution
                self.provenance.mark(tensor, parents)
        self.provenance.mark(value, {name})
        self.provenance.mark(handed_out, {name})
        self._lineage[name] = self.ancestors(parents)
        self.samples[name] = Sample(value, summed, parents, pathwise)
        return handed_out

    def cost(self, name: str, value: Tensor | float) -> None:
        """Add a cost to what is to be minimised.

        Raises:
            ValueError: the name is taken, or the cost is not finite or not one number for each batch element.
        """
        self._statement(self._cost, name, value)

    def _cost(self, name: str, value: Tensor | float) -> None:
        self._check_name(name)
        what = f"cost {name!r}"
        parents = self.provenance.of(value) | self.provenance.escaped
        with self.provenance.paused():
            if not isinstance(value, Tensor):
                value = self._tensor(number(what, value))
            if value.is_complex():
                raise ValueError(f"{what} must be a real number, got {value.dtype}")
            # A copy, for the program may go on adding to it; differences of large costs are kept in its precision.
            copied = value.to(at_least_single(value.dtype, value.device), copy=True)
        with untracked():
            if copied.ndim != self.batch_dims:
                each = f" for each element of {self.batch_dims} batch dimensions" if self.batch_dims else ""
                raise ValueError(f"{what} must be one number{each}, got shape {tuple(copied.shape)}")
            self._check_batch(what, copied.shape)
            if not is_finite(copied):
                raise ValueError(f"{what} is not finite")
        self.costs[name] = Cost(copied, parents)

    def mark_record(self) -> None:
        """Mark the log-probabilities and costs that it keeps, for a baseline may be made of them."""
        for name, sample in self.samples.items():
            self.provenance.mark(sample.log_prob, {name})
        for cost in self.costs.values():
            self.provenance.mark(cost.value, cost.parents)

    def parents(self) -> dict[str, Names]:
        """Of each sample and each cost, the variables that it was computed from; every parent stands before."""
        nodes: dict[str, Sample | Cost] = {**self.samples, **self.costs}
        return {name: node.parents for name, node in nodes.items()}

    def ancestors(self, parents: Names) -> Names:
        """All variables that lead to something, given those it was computed from."""
        return parents.union(*(self._lineage[name] for name in parents))

    def _statement(self, run: Callable[..., Any], *args: Any) -> Any:
        """Run a statement with gradients on, and keep its error, to raise it again if the program catches it."""
        if self._error is not None:
            raise self._error
        try:
            if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
                return run(*args)
            with torch.inference_mode(False):
                return run(*args)
        except BaseException as error:
            self._error = error
            raise

    def _check_gradients(self, what: str, tensors: Iterable[Tensor]) -> None:
        if self.provenance.lost_gradients and any(map(self.provenance.has_lost_gradient, tensors)):
            raise ValueError(
                f"the distribution of {what} was computed under torch.no_grad() from what needs a gradient, which is "
                "lost; make the distribution outside, where no_grad() may stay around the sample statement alone, or, "
                "if it is to be constant, detach() what it is made of there"
            )

    def _tensor(self, number: float) -> Tensor:
        """Return the cost of each batch element, on the device of the log-probabilities so far."""
        latest = next(reversed(self.samples.values()), None)
        device = torch.get_default_device() if latest is None else latest.log_prob.device
        number_type = at_least_single(torch.float64, device)
        return torch.tensor(number, dtype=number_type, device=device).expand(self.batch_shape or ())

    def _check_name(self, name: str) -> None:
        if not isinstance(name, str):
            raise ValueError(f"the name of a sample or a cost must be a string, got {name!r}")
        if name in self.samples or name in self.costs:
            raise ValueError(f"the name {name!r} is used twice; each sample and each cost needs one of its own")

    def _check_batch(self, what: str, shape: torch.Size) -> None:
        if self.batch_shape is None and len(shape) >= self.batch_dims:
            self.batch_shape = shape[: self.batch_dims]
        if shape[: self.batch_dims] != self.batch_shape:
            raise ValueError(
                f"{what} has shape {tuple(shape)}, which does not begin with the {self.batch_dims} batch dimensions "
                f"{tuple(self.batch_shape or ())}"
            )


def check_known(names: Iterable[str], runs: Iterable[Run]) -> None:
    """Raise an error if there is no variable of a name; where values steer the program, another run may have one."""
    if any(run.provenance.escaped for run in runs):
        return
    known = {name for run in runs for name in run.samples}
    if unknown := set(names) - known:
        raise ValueError(f"there is no sample {quote_names(unknown)}; there are {quote_names(known)}")


def sum_to(batch_dims: int, value: Tensor) -> Tensor:
    """Sum over all but the batch dimensions."""
    return value.sum(list(range(batch_dims, value.ndim))) if value.ndim > batch_dims else value


def is_finite(value: Tensor) -> bool:
    """Tell whether all elements are finite."""
    return math.isfinite(value.item()) if value.ndim == 0 else bool(value.isfinite().all())


def number(what: str, value: Any) -> float:
    """Convert to a number, or say that it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a number, got {type(value).__name__}") from None


def values_of(run: Run) -> Mapping[str, Tensor]:
    """Values of a run's variables by name."""
    return {name: sample.value for name, sample in run.samples.items()}
