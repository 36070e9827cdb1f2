import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from zoo.constraints import COUNT, POSITIVE, Constraint, check_constraints, is_integer

FEWEST_INDEPENDENT = 50.0  # iterates' worth, below which their standard error is not to be believed
SHRINK = 0.8  # from one window to the next shorter one
CONSTRAINTS = {
    "tolerance": POSITIVE,
    "confidence": Constraint("above 0 and below 1", lambda x: 0 < x < 1),
    "largest_r_hat": Constraint("above 1", lambda x: 1 < x < math.inf),
    "every": COUNT,
    "shortest": Constraint("a whole number of 4 or more", lambda x: is_integer(x) and x >= 4),
    "capacity": Constraint("an even number", lambda x: is_integer(x) and x > 0 and x % 2 == 0),
}


class IterateAverage(NamedTuple):
    """Average of a window of iterates, and how well it is known."""

    mean: Float64[Tensor, " parameters"]
    standard_error: Float64[Tensor, " parameters"]
    """Of the mean; see ``average``."""
    effective_size: Float64[Tensor, " parameters"]
    """So many independent iterates would tell as much."""
    r_hat: Float64[Tensor, " parameters"]
    iterates: int
    """In the window, or means of several."""


class Verdict(NamedTuple):
    """What a look at the iterates has found."""

    stop: bool
    step: int
    """When it was taken."""
    average: IterateAverage | None
    """Of the last iterates, if they have settled."""
    start: int
    """First step of the window that is averaged; ``step`` without one."""
    half_width: float
    """Of the widest interval, in the units of its parameter; infinite without an average."""
    tolerance: float
    confidence: float

    def __str__(self) -> str:
        if self.average is None:
            return f"step {self.step}: go on, the iterates still move"
        known = (
            f"averaged from step {self.start} on, all {len(self.average.mean)} parameters are known to ± "
            f"{self.half_width:.2g} with {self.confidence:.0%} confidence, if they have settled"
        )
        if self.stop:
            return f"step {self.step}: stop, {known}"
        return f"step {self.step}: go on, {known}, and ± {self.tolerance:g} is wanted"


def split_r_hat(iterates: Float[Tensor, "iterates parameters"]) -> Float64[Tensor, " parameters"]:
    """R-hat of the two halves of a chain: near 1 where they cannot be told apart; 1 where nothing moves.

    Gelman & Rubin, "Inference from iterative simulation using multiple sequences", 1992, as split in Gelman et al.,
    "Bayesian data analysis", 2013.

    Example:
        >>> moving, constant = torch.linspace(0, 1, 100), torch.ones(100)
        >>> split_r_hat(torch.stack([moving, constant], -1)) > 1.5
        tensor([ True, False])
    """
    r_hat: Tensor = split_gelman_rubin(iterates.double().unsqueeze(0))
    return torch.where((iterates == iterates[0]).all(0), 1.0, r_hat)


def average(iterates: Float[Tensor, "iterates parameters"]) -> IterateAverage:
    """Average iterates of stochastic optimisation, and tell how well their stationary mean is known.

    Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992. Of the standard error there are
    two parts, added as squares: ``sd / sqrt(effective size)``, and half the distance between the means of the halves.
    The second is as large as the first if the iterates are stationary, and larger if they still drift. What never moves
    is known exactly.

    Example:
        >>> found = average(torch.randn(1000, 1) + 3)
        >>> abs(found.mean.item() - 3) < 5 * found.standard_error.item()
        True
    """
    iterates = iterates.double()
    moves = (iterates != iterates[0]).any(0)
    size = iterates.new_full(moves.shape, len(iterates))
    if bool(moves.any()):  # what does not would spoil the others' too
        size[moves] = effective_sample_size(iterates[:, moves].unsqueeze(0)).clamp(1, len(iterates))
    half = len(iterates) // 2
    drift = (iterates[:half].mean(0) - iterates[-half:].mean(0)) / 2
    error = (iterates.var(0) / size + drift.square()).sqrt()
    return IterateAverage(iterates.mean(0), error, size, split_r_hat(iterates), len(iterates))


def settled_average(
    iterates: Float[Tensor, "iterates parameters"],
    shortest: int = 100,
    largest_r_hat: float = 1.1,
    unit: float | Float[Tensor, "*parameters"] = 1.0,
) -> IterateAverage | None:
    """Average the window of last iterates whose mean is known best; by R-hat, all parameters have settled in it.

    Dhaka, Catalina, Andersen, Magnusson, Huggins & Vehtari, "Robust, accurate stochastic optimization for variational
    inference", 2020; Welandawe, Andersen, Vehtari & Huggins, "Robust, automated, and accurate black-box variational
    inference", 2022, who take the window in which R-hat is smallest. The longest one would still hold some of the way
    from the start, which R-hat overlooks where the iterates vary much; the standard error does not.

    Returns:
        The average; None if no window has settled.

    Example:
        >>> falling, settled = torch.linspace(10, 0, 300), torch.randn(600)
        >>> settled_average(torch.cat([falling, settled]).unsqueeze(-1)).iterates < 650
        True
    """
    last = (iterates[-length:] for length in windows(len(iterates), shortest))
    found = [average(window) for window in last if split_r_hat(window).max() <= largest_r_hat]
    return min(found, key=lambda each: (each.standard_error / unit).max().item(), default=None)


def windows(longest: int, shortest: int) -> Iterator[int]:
    """Lengths to try, from the longest to the shortest."""
    length = longest
    while length >= shortest:
        yield length
        length = int(SHRINK * length)


class StoppingRule:
    """Stops stochastic optimisation when the average of its iterates is known well enough, and says how well that is.

    Every ``every`` steps it looks for a window of last iterates in which all parameters have settled; see
    ``settled_average``. Their average is the answer; optimisation stops when the interval of each parameter is within
    ``± tolerance``. The intervals hold for all parameters together (Bonferroni). As in any rule of fixed width (Glynn &
    Whitt, "The asymptotic validity of sequential stopping rules for stochastic simulations", 1992) their confidence is
    exact in the limit of a small tolerance only. And it is about where iterates with this learning rate settle: not
    about how good an optimum that is, nor about where they would go with a smaller one. The learning rate is to be
    constant. A drift so slow that the noise of the whole run hides it, as with a learning rate that is far too small,
    looks settled; nothing in the iterates tells otherwise.

    It keeps iterates, or means of as many steps each as makes them fit into ``capacity``. Its state is plain data.

    Args:
        tolerance: half-width of the intervals, in ``unit``.
        unit: of each parameter, such as the guide's standard deviation for a location; 1 suits logarithms.
        confidence: of all intervals together.
        largest_r_hat: what counts as settled.
        every: steps between two looks.
        shortest: fewest kept means in a window.
        capacity: most means that are kept, an even number.

    Raises:
        ValueError: an option makes no sense.

    Example:
        >>> rule = StoppingRule(tolerance=0.1)
        >>> step = 0
        >>> while not rule.update(torch.randn(2)):
        ...     step += 1
        >>> 300 < step < 10_000
        True
    """

    def __init__(
        self,
        tolerance: float = 0.05,
        unit: float | Float[Tensor, " parameters"] = 1.0,
        confidence: float = 0.95,
        largest_r_hat: float = 1.1,
        every: int = 100,
        shortest: int = 100,
        capacity: int = 2000,
    ):
        options = {"tolerance": tolerance, "confidence": confidence, "largest_r_hat": largest_r_hat}
        options |= {"every": every, "shortest": shortest, "capacity": capacity}
        check_constraints(options, CONSTRAINTS)
        if shortest > capacity / 2:
            raise ValueError(f"shortest must be at most half of capacity, got {shortest} and {capacity}")
        try:
            self.unit = torch.as_tensor(unit, dtype=torch.float64)
        except TypeError as error:
            raise ValueError(f"unit must be a number or a vector of them, got {unit!r}") from error
        if not bool(((self.unit > 0) & self.unit.isfinite()).all()):
            raise ValueError(f"unit must be positive and finite, got {unit}")
        self.tolerance = tolerance
        self.confidence = confidence
        self.largest_r_hat = largest_r_hat
        self.every = every
        self.shortest = shortest
        self.capacity = capacity
        self.step = 0
        self.stride = 1
        self.kept: list[Tensor] = []
        self.unfinished: list[Tensor] = []

    def update(self, iterate: Float[Tensor, " parameters"]) -> bool:
        """Take in the parameters after a step; tell whether to stop.

        Raises:
            ValueError: there are more or fewer parameters than before, or than units, or one is not finite.
        """
        iterate = iterate.detach().to("cpu", torch.float64, copy=True)
        known = [*self.kept[:1], *self.unfinished[:1]]
        if iterate.ndim != 1 or (known and iterate.shape != known[0].shape):
            wanted = f"of shape {tuple(known[0].shape)}, as before" if known else "in one vector"
            raise ValueError(f"parameters must come {wanted}, got shape {tuple(iterate.shape)}")
        if self.unit.ndim and self.unit.shape != iterate.shape:
            raise ValueError(f"there are {len(iterate)} parameters, and units for {self.unit.numel()}")
        if not bool(iterate.isfinite().all()):
            raise ValueError(f"a parameter is not finite after step {self.step + 1}")
        self.step += 1
        self.unfinished.append(iterate)
        if len(self.unfinished) == self.stride:
            self.kept.append(torch.stack(self.unfinished).mean(0))
            self.unfinished = []
        if len(self.kept) == self.capacity:
            self.kept = list(torch.stack(self.kept).unflatten(0, (-1, 2)).mean(1))
            self.stride *= 2
        return self.step % self.every == 0 and self.verdict().stop

    def verdict(self) -> Verdict:
        """Look at the iterates so far."""
        blank = Verdict(False, self.step, None, self.step, math.inf, self.tolerance, self.confidence)
        if len(self.kept) < self.shortest:
            return blank
        found = settled_average(torch.stack(self.kept), self.shortest, self.largest_r_hat, self.unit)
        if found is None:
            return blank
        tail = (1 - self.confidence) / 2 / len(found.mean)
        z = -torch.special.ndtri(torch.tensor(tail, dtype=torch.float64))
        half_width = (z * found.standard_error / self.unit).max().item()
        stop = half_width <= self.tolerance and found.effective_size.min().item() >= FEWEST_INDEPENDENT
        start = self.stride * (len(self.kept) - found.iterates) + 1
        return blank._replace(stop=stop, average=found, start=start, half_width=half_width)

    def state_dict(self) -> dict[str, Any]:
        """Give all that it remembers, as plain data."""
        rows = {"kept": self.kept, "unfinished": self.unfinished}
        stacked = {name: torch.stack(each) if each else torch.zeros(0) for name, each in rows.items()}
        return {"step": self.step, "stride": self.stride, **stacked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a rule was that gave this state; its options are not part of it."""
        self.step, self.stride = state["step"], state["stride"]
        self.kept, self.unfinished = (list(state[name].clone()) for name in ("kept", "unfinished"))
