from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._compilation import uncompilable
from zoo.gradients.baselines import Baseline
from zoo.gradients.graphs._baselines import BaselineLike, learning_modules
from zoo.gradients.graphs._distributions import in_support
from zoo.gradients.graphs._provenance.names import Names, quote_names
from zoo.gradients.graphs._provenance.torch_internals import untracked
from zoo.gradients.graphs._rendering import render_graph
from zoo.gradients.graphs._run import Run, check_sample_names
from zoo.gradients.graphs._surrogate import dice_surrogate, score_surrogate
from zoo.gradients.graphs.program import Program

_Draw = Callable[[str, Distribution], Tensor]


class Pathwise:
    """Estimator of a sample's gradient through its value (reparameterization), not through its density.

    Kingma & Welling, "Auto-encoding variational Bayes", 2014.

    Example:
        >>> from zoo.gradients import trace
        >>> def program(graph, loc):
        ...     graph.cost("f", 3 * graph.sample("z", torch.distributions.Normal(loc, 1.0)))
        >>> loc = torch.tensor(0.0, requires_grad=True)
        >>> trace(program, loc, estimators={"z": Pathwise()}).surrogate().backward()
        >>> loc.grad
        tensor(3.)
    """


class StochasticGraph:
    """Samples, costs and dependencies of one or several runs of a program; ``trace`` returns one.

    Example:
        >>> from zoo.gradients import trace
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", 2 * x)
        >>> graph = trace(program, torch.tensor(0.7), draw=lambda name, distribution: torch.tensor(1.0))
        >>> graph.samples, graph.costs, sorted(graph.influences("x"))
        ({'x': tensor(1.)}, {'f': tensor(2.)}, ['f'])
    """

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        self._learned_baselines: set[Baseline] = set()

    @property
    def samples(self) -> dict[str, Tensor]:
        """Values by name, each from the first run that sampled it."""
        return {name: value for run in reversed(self.runs) for name, value in run.values().items()}

    @property
    def costs(self) -> dict[str, Tensor]:
        """Costs ``(*batch)`` by name, each from the first run that has it."""
        return {name: cost.value for run in reversed(self.runs) for name, cost in run.costs.items()}

    def influences(self, name: str) -> Names:
        """Return the names of the samples and costs that a sample influences, in any of the runs.

        Raises:
            ValueError: there is no such sample.
        """
        if name not in self.samples:
            raise ValueError(f"there is no sample {name!r}; there are {quote_names(self.samples)}")
        return frozenset(
            other for run in self.runs for other, parents in run.parents().items() if name in run.ancestors(parents)
        )

    @uncompilable
    def surrogate(self, baselines: Mapping[str, BaselineLike] | None = None, order: int = 1) -> Tensor:
        """Return a scalar whose gradient is an unbiased estimate of that of the expected sum of all costs.

        Its value is the mean cost over the runs, summed over the batch. For order 1 it is ``Σ_c c + Σ_w log p(w)
        (Q_w - b_w)``, ``Q_w`` the costs that ``w`` influences (Schulman et al. 2015); for higher orders it is DiCE
        (Foerster et al. 2018) with the baselines of Mao et al. 2019.

        Args:
            baselines: by name of the sample: a number, or a tensor that was not computed from this graph; a
                ``Baseline``, whose first dimension is the runs (``LeaveOneOutBaseline(dim=0)`` compares these) and
                whose others are the batch; a ``BaselineWithContext``; or a function of the values of samples. A tensor
                that was computed from the graph's values outside of such a function counts as a constant.
            order: highest order of the derivatives to be taken; Hessians need ``order=2``.

        Raises:
            ValueError: the order is below 1, or a baseline is invalid: it uses what its sample influences, has a
                gradient or a shape that does not fit, or has learned from this graph before.

        Example:
            >>> from zoo.gradients import LeaveOneOutBaseline, trace
            >>> def program(graph, theta):
            ...     graph.cost("f", graph.sample("x", torch.distributions.Bernoulli(logits=theta)))
            >>> theta = torch.tensor(0.7, requires_grad=True)
            >>> trace(program, theta, num_samples=8).surrogate({"x": LeaveOneOutBaseline(dim=0)}).backward()
        """
        if not isinstance(order, int) or order < 1:
            raise ValueError(f"order must be 1, 2, …, got {order}")
        if not isinstance(baselines, Mapping | None):
            raise ValueError(f"baselines must be a mapping from names of samples, as {{'x': {baselines!r}}}")
        baselines = baselines or {}
        learning = {part for baseline in baselines.values() for part in learning_modules(baseline) if part.training}
        if again := learning & self._learned_baselines:
            raise ValueError(
                f"{type(again.pop()).__name__} has learned from this graph already, and would bias the gradient if it "
                "were used on it again; trace the program again"
            )
        surrogate = (score_surrogate if order == 1 else dice_surrogate)(self.runs, baselines)
        self._learned_baselines |= learning
        return surrogate

    def render(self) -> str:
        """Return the graph of the last run as SVG; notebooks display it by themselves."""
        run = self.runs[-1]
        stochastic = frozenset(name for name, sample in run.samples.items() if not sample.pathwise)
        return render_graph(run.parents(), stochastic)

    _repr_svg_ = render


class _TracedRun(Run):
    """Run of a program on sampled values; ``draw`` replaces the distributions' own sampling."""

    def __init__(self, batch_dims: int, pathwise: Names, draw: _Draw | None):
        super().__init__(batch_dims)
        self.pathwise = pathwise
        self.draw = draw

    def draw_value(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        if name in self.pathwise:
            if not distribution.has_rsample:
                raise ValueError(f"sample {name!r} ({type(distribution).__name__}) has no pathwise gradient")
            return distribution.rsample(), True
        if self.draw is None:
            try:
                return distribution.sample().detach(), False
            except RuntimeError as error:
                raise ValueError(f"sample {name!r} cannot be drawn from {distribution}: {error}") from error
        drawn = self.draw(name, distribution)
        if not isinstance(drawn, Tensor | float | int):
            raise ValueError(f"draw must return a tensor for sample {name!r}, got {type(drawn).__name__}")
        value = torch.as_tensor(drawn).detach().clone()
        with untracked():
            if not in_support(distribution, value):
                raise ValueError(f"sample {name!r} lies outside the support of {distribution}: {value.tolist()}")
        return value, False


@uncompilable
def trace(
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    num_samples: int = 1,
    estimators: Mapping[str, Pathwise] | None = None,
    draw: _Draw | None = None,
) -> StochasticGraph:
    """Run a program and record its samples, its costs, and the dependencies between them.

    Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015. Dependencies are
    tracked through torch functions. A value that becomes a Python object (``item``, ``if``, an index) influences all
    that comes later, and so does one whose use could have raised an error that the program handles. Threads that the
    program starts are tracked, and tasks that it submits to a ``ThreadPoolExecutor`` or a ``ThreadPool``; other threads
    that exist already, such as workers at a queue, are not. Log-probabilities are computed with gradients enabled.

    Args:
        program: function of a ``Graph`` and other arguments, which calls ``graph.sample(name, distribution)`` and
            ``graph.cost(name, value)``.
        args: the other arguments.
        batch_dims: number of leading dimensions that are independent, in log-probabilities, costs and baselines. The
            elements of a sample are otherwise one node.
        num_samples: number of runs; the surrogate is their mean.
        estimators: gradient estimator by name of the sample; all others use the score function. ``Pathwise()`` is the
            only one so far (those of ``zoo.gradients.estimators`` are for ELBOs, not for single samples).
        draw: function that returns the value of a score-function sample, given its name and its distribution; None to
            sample from the distribution.

    Raises:
        ValueError: a name is used twice, a cost is not one finite number for each batch element, a sample lies outside
            its support or has another shape than its distribution, a log-probability is not finite, the support
            depends on the parameters, a distribution has lost its gradient under ``torch.no_grad()`` or by a
            probability of 0 or 1, there is no sample or no cost, or a value is used where it cannot be tracked.

    Example:
        >>> import torch
        >>> from torch.distributions import Bernoulli
        >>> def program(graph, theta):
        ...     x = graph.sample("x", Bernoulli(logits=theta))
        ...     y = graph.sample("y", Bernoulli(logits=2 * x - theta))
        ...     graph.cost("f", (x + y - theta) ** 2)
        >>> theta = torch.tensor(0.7, requires_grad=True)
        >>> graph = trace(program, theta)
        >>> sorted(graph.influences("x"))
        ['f', 'y']
        >>> graph.surrogate().backward()  # theta.grad is one Monte Carlo estimate
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    for name, estimator in (estimators or {}).items():
        if not isinstance(estimator, Pathwise):
            raise ValueError(f"the estimator of {name!r} must be Pathwise(), or omitted for the score function")
    runs = []
    for _ in range(num_samples):
        run = _TracedRun(batch_dims, frozenset(estimators or {}), draw)
        run.execute(program, args)
        runs.append(run)
    check_sample_names(estimators or {}, runs)
    return StochasticGraph(runs)
