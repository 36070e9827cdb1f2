from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._compilation import uncompilable
from zoo.gradients.baselines import Baseline
from zoo.gradients.graphs._baselines import Guess, learning_parts
from zoo.gradients.graphs._distributions import in_support
from zoo.gradients.graphs._provenance.names import Names, quote_names
from zoo.gradients.graphs._provenance.provenance import untracked
from zoo.gradients.graphs._rendering import render_graph
from zoo.gradients.graphs._surrogate import dice_surrogate, score_surrogate
from zoo.gradients.graphs.program import Program, Run, check_known

Draw = Callable[[str, Distribution], Tensor]


class Pathwise:
    """Ask for the pathwise gradient of a variable: through its value, not through its density.

    Kingma & Welling, "Auto-encoding variational Bayes", 2014.
    """


class StochasticGraph:
    """What one or several runs of a program sampled and paid, and who influenced whom.

    Args:
        runs: of the same program.
    """

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        self._have_learned: set[Baseline] = set()

    @property
    def samples(self) -> dict[str, Tensor]:
        """Values of the variables, by name; of the first run that drew each."""
        return {name: sample.value for run in reversed(self.runs) for name, sample in run.samples.items()}

    @property
    def costs(self) -> dict[str, Tensor]:
        """Costs by name, ``(*batch)``; of the first run that paid each."""
        return {name: cost.value for run in reversed(self.runs) for name, cost in run.costs.items()}

    def influences(self, name: str) -> Names:
        """Names of the samples and costs that a variable influences, in any of the runs.

        Raises:
            ValueError: there is no such variable.
        """
        if name not in self.samples:
            raise ValueError(f"there is no sample {name!r}; there are {quote_names(self.samples)}")
        return frozenset(
            other for run in self.runs for other, parents in run.parents().items() if name in run.ancestors(parents)
        )

    @uncompilable
    def surrogate(self, baselines: Mapping[str, Guess] | None = None, order: int = 1) -> Tensor:
        """Scalar whose gradient estimates, without bias, that of the expected sum of all costs.

        Its value is the mean cost over the runs, summed over the batch. See ``score_surrogate`` for order 1,
        ``dice_surrogate`` for derivatives of higher orders.

        Args:
            baselines: for variables by name: a number, or a tensor that was not computed from this graph; a
                ``Baseline`` (its first dimension is that of the runs, so that
                ``LeaveOneOutBaseline(dim=0)`` compares these;
                the batch dimensions follow); ``BaselineWithContext`` for a learned one; or a function of the values of
                variables. What was made of the graph's values outside of such a function, after the trace,
                cannot be told from a constant.
            order: of the derivatives to be taken; the second needs ``order=2``.

        Raises:
            ValueError: there is no such order, or a baseline is not valid: it uses what its variable influences, has a
                gradient or a shape that does not fit, or has learned from this graph before.

        Example:
            >>> import torch
            >>> from zoo.gradients import LeaveOneOutBaseline, trace
            >>> def program(graph, theta):
            ...     graph.cost("f", graph.sample("x", torch.distributions.Bernoulli(logits=theta)))
            >>> theta = torch.tensor(0.7, requires_grad=True)
            >>> trace(program, theta, num_samples=8).surrogate({"x": LeaveOneOutBaseline(dim=0)}).backward()
        """
        if not isinstance(order, int) or order < 1:
            raise ValueError(f"order must be 1, 2, …, got {order}")
        if not isinstance(baselines, Mapping | None):
            raise ValueError(f"baselines must be given by the names of variables, as in {{'x': {baselines!r}}}")
        learning = self._check_learning(baselines or {})
        surrogate = (score_surrogate if order == 1 else dice_surrogate)(self.runs, baselines or {})
        self._have_learned |= learning
        return surrogate

    def _check_learning(self, baselines: Mapping[str, Guess]) -> set[Baseline]:
        """Find the baselines that learn, and raise an error if one has learned from this graph already."""
        learning = {part for given in baselines.values() for part in learning_parts(given) if part.training}
        if again := learning & self._have_learned:
            raise ValueError(
                f"{type(again.pop()).__name__} has learned from this graph already, and would bias the gradient if it "
                "were used on it again; trace anew"
            )
        return learning

    def draw(self) -> str:
        """Draw the graph as SVG; of the last run. Notebooks show it by themselves."""
        run = self.runs[-1]
        stochastic = frozenset(name for name, sample in run.samples.items() if not sample.pathwise)
        return render_graph(run.parents(), stochastic)

    def _repr_svg_(self) -> str:
        return self.draw()


class TracedRun(Run):
    """Runs a program on drawn values.

    Args:
        batch_dims: leading dimensions that are independent.
        pathwise: names of the variables whose gradient flows through their value.
        draw: where the values of the others come from; None for the distribution itself.
    """

    def __init__(self, batch_dims: int, pathwise: Names, draw: Draw | None):
        super().__init__(batch_dims)
        self.pathwise = pathwise
        self.draw = draw

    def find(self, name: str, distribution: Distribution) -> tuple[Tensor, bool]:
        """Draw a value."""
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
            raise ValueError(f"draw must give a tensor for sample {name!r}, got {type(drawn).__name__}")
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
    draw: Draw | None = None,
) -> StochasticGraph:
    """Run a program, and note what it sampled, what it cost, and who depends on whom.

    Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015. Dependencies are
    followed through torch functions. A value that becomes a Python object (``item``, ``if``, an index) influences all
    that comes later, and so does one whose use could have raised an error that the program handles. Threads that the
    program starts are followed, and tasks that it gives to a ``ThreadPoolExecutor`` or a ``ThreadPool``; what other
    threads from before do with its values, such as those that wait at a queue, is not. Log-probabilities are taken with
    gradients on, whatever is on around a sample statement.

    Args:
        program: a function of a ``Graph`` and other arguments, which calls ``graph.sample(name, distribution)`` and
            ``graph.cost(name, value)``.
        args: the other arguments.
        batch_dims: leading dimensions that are independent, and matched elementwise: in log-probabilities, costs and
            baselines. Without any, all elements of a variable are one node.
        num_samples: how often to run it; the surrogate is the mean over the runs.
        estimators: how to differentiate variables by name; the score function where none is given.
        draw: source of the values that the score function is taken of, called with a name and a distribution; None to
            sample the distribution.

    Raises:
        ValueError: a name is used twice, a cost is not one finite number for each batch element, a sample lies outside
            its support or has another shape than its distribution, a log-probability is not finite, the support moves
            with the parameters, a distribution has lost its gradient under ``torch.no_grad()`` or by a probability of 0
            or 1, there is no sample or no cost, or memory is handed to where it cannot be followed.

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
            raise ValueError(f"the estimator of {name!r} can be Pathwise(), or none for the score function")
    runs = []
    for _ in range(num_samples):
        run = TracedRun(batch_dims, frozenset(estimators or {}), draw)
        run.execute(program, args)
        runs.append(run)
    check_known(estimators or {}, runs)
    return StochasticGraph(runs)
