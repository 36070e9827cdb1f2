import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from zoo._constraints import COUNT, POSITIVE, Constraint, check_constraints, is_integer

MIN_EFFECTIVE_SIZE = 50.0  # effective sample size below which standard errors are unreliable
WINDOW_RATIO = 0.8  # length of a window relative to the next longer one
CONSTRAINTS = {
    "tolerance": POSITIVE,
    "confidence": Constraint("above 0 and below 1", lambda x: 0 < x < 1),
    "max_r_hat": Constraint("above 1", lambda x: 1 < x < math.inf),
    "check_interval": COUNT,
    "min_window": Constraint("a whole number of 4 or more", lambda x: is_integer(x) and x >= 4),
    "max_iterates": Constraint("an even number", lambda x: is_integer(x) and x > 0 and x % 2 == 0),
}


class IterateAverage(NamedTuple):
    """Average of a window of iterates, with its standard error; see ``average_window``.

    Example:
        >>> average_window(torch.randn(200, 3)).num_iterates
        200
    """

    mean: Float64[Tensor, " parameters"]
    standard_error: Float64[Tensor, " parameters"]
    effective_sample_size: Float64[Tensor, " parameters"]
    r_hat: Float64[Tensor, " parameters"]
    num_iterates: int
    """Number of stored iterates in the window; see ``StoppingRule.max_iterates``."""


class ConvergenceStatus(NamedTuple):
    """Result of a convergence check.

    Example:
        >>> print(StoppingRule(tolerance=0.1).status())
        step 0: continue, the iterates have not converged
    """

    stop: bool
    step: int
    average: IterateAverage | None
    """Average of the last iterates, if they have converged."""
    start: int
    """First step of the averaged window; ``step`` without an average."""
    half_width: float
    """Half-width of the widest confidence interval, in units of its parameter; infinite without an average."""
    tolerance: float
    confidence: float

    def __str__(self) -> str:
        if self.average is None:
            return f"step {self.step}: continue, the iterates have not converged"
        precision = (
            f"the average since step {self.start} estimates all {len(self.average.mean)} parameters within ± "
            f"{self.half_width:.2g} with {self.confidence:.0%} confidence, if the iterates are stationary"
        )
        if self.stop:
            return f"step {self.step}: stop, {precision}"
        return f"step {self.step}: continue, {precision}; the tolerance is ± {self.tolerance:g}"


def split_r_hat(iterates: Float[Tensor, "iterates parameters"]) -> Float64[Tensor, " parameters"]:
    """Return the split R-hat of a chain: near 1 if its halves agree; exactly 1 for a constant parameter.

    Gelman & Rubin, "Inference from iterative simulation using multiple sequences", 1992, as split in Gelman et al.,
    "Bayesian data analysis", 2013.

    Example:
        >>> moving, constant = torch.linspace(0, 1, 100), torch.ones(100)
        >>> split_r_hat(torch.stack([moving, constant], -1)) > 1.5
        tensor([ True, False])
    """
    r_hat: Tensor = split_gelman_rubin(iterates.double().unsqueeze(0))
    return torch.where((iterates == iterates[0]).all(0), 1.0, r_hat)


def average_window(iterates: Float[Tensor, "iterates parameters"]) -> IterateAverage:
    """Return the average of the iterates of stochastic optimization, with its standard error.

    Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992. The squared standard error is the
    sum of two squares: that of ``sd / sqrt(effective sample size)``, and that of half the difference between the means
    of the first and the second half. For stationary iterates, both are equally large on average; for iterates that
    drift, the second is larger. Both are 0 for a constant parameter.

    Example:
        >>> found = average_window(torch.randn(1000, 1) + 3)
        >>> abs(found.mean.item() - 3) < 5 * found.standard_error.item()
        True
    """
    iterates = iterates.double()
    varies = (iterates != iterates[0]).any(0)
    size = iterates.new_full(varies.shape, len(iterates))
    if bool(varies.any()):  # with a constant parameter among them, all sizes would be NaN
        size[varies] = effective_sample_size(iterates[:, varies].unsqueeze(0)).clamp(1, len(iterates))
    half = len(iterates) // 2
    drift = (iterates[:half].mean(0) - iterates[-half:].mean(0)) / 2
    error = (iterates.var(0) / size + drift.square()).sqrt()
    return IterateAverage(iterates.mean(0), error, size, split_r_hat(iterates), len(iterates))


def average_best_window(
    iterates: Float[Tensor, "iterates parameters"],
    min_window: int = 100,
    max_r_hat: float = 1.1,
    unit: float | Float[Tensor, "*parameters"] = 1.0,
) -> IterateAverage | None:
    """Return the average over the trailing window of smallest standard error among those with a small R-hat, or None.

    Dhaka, Catalina, Andersen, Magnusson, Huggins & Vehtari, "Robust, accurate stochastic optimization for variational
    inference", 2020; Welandawe, Andersen, Vehtari & Huggins, "Robust, automated, and accurate black-box variational
    inference", 2022, who use the window with the smallest R-hat. R-hat does not detect a transient that is small beside
    the noise; such a transient increases the standard error instead.

    Example:
        >>> falling, settled = torch.linspace(10, 0, 300), torch.randn(600)
        >>> average_best_window(torch.cat([falling, settled]).unsqueeze(-1)).num_iterates < 650
        True
    """
    windows = (iterates[-length:] for length in _window_lengths(len(iterates), min_window))
    found = [average_window(window) for window in windows if split_r_hat(window).max() <= max_r_hat]
    return min(found, key=lambda each: (each.standard_error / unit).max().item(), default=None)


def _window_lengths(longest: int, min_window: int) -> Iterator[int]:
    length = longest
    while length >= min_window:
        yield length
        length = int(WINDOW_RATIO * length)


class StoppingRule:
    """Stops stochastic optimization when the average of its iterates is precise enough.

    Every ``check_interval`` steps it searches for a trailing window in which all parameters have converged; see
    ``average_best_window``. Optimization stops when the confidence intervals of all parameters are within
    ``± tolerance`` (simultaneously, by Bonferroni's correction) and the effective sample size of each is at least 50.
    The confidence is exact in the limit of a small tolerance: Glynn & Whitt, "The asymptotic validity of sequential
    stopping rules for stochastic simulations", 1992. The interval is that of the stationary mean at a
    constant learning rate; it does not measure the quality of the optimum. A drift below the noise of the whole run, as
    with a learning rate that is far too small, is not detected.

    Args:
        tolerance: half-width of the intervals, in units of ``unit``.
        unit: scale of each parameter, such as the guide's standard deviation for a location; 1 suits logarithms.
        confidence: simultaneous confidence level.
        max_r_hat: largest R-hat of a converged window.
        check_interval: steps between checks.
        min_window: minimum number of stored iterates in a window.
        max_iterates: maximum number of stored iterates, an even number. In longer runs, each is the mean of several
            consecutive iterates.

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
        max_r_hat: float = 1.1,
        check_interval: int = 100,
        min_window: int = 100,
        max_iterates: int = 2000,
    ):
        options = {"tolerance": tolerance, "confidence": confidence, "max_r_hat": max_r_hat}
        options |= {"check_interval": check_interval, "min_window": min_window, "max_iterates": max_iterates}
        check_constraints(options, CONSTRAINTS)
        if min_window > max_iterates / 2:
            raise ValueError(f"min_window must be at most half of max_iterates, got {min_window} and {max_iterates}")
        try:
            self.unit = torch.as_tensor(unit, dtype=torch.float64)
        except TypeError as error:
            raise ValueError(f"unit must be a number or a vector of them, got {unit!r}") from error
        if not bool(((self.unit > 0) & self.unit.isfinite()).all()):
            raise ValueError(f"unit must be positive and finite, got {unit}")
        self.tolerance, self.confidence, self.max_r_hat = tolerance, confidence, max_r_hat
        self.check_interval, self.min_window, self.max_iterates = check_interval, min_window, max_iterates
        self.step, self.stride = 0, 1
        self.iterates: list[Tensor] = []
        self.pending: list[Tensor] = []

    def update(self, iterate: Float[Tensor, " parameters"]) -> bool:
        """Add the parameters after a step, and return whether to stop; raise ``ValueError`` if one is not finite."""
        iterate = iterate.detach().to("cpu", torch.float64, copy=True)
        previous = [*self.iterates[:1], *self.pending[:1]]
        if iterate.ndim != 1 or (previous and iterate.shape != previous[0].shape):
            wanted = f"have shape {tuple(previous[0].shape)}, as before" if previous else "be one vector"
            raise ValueError(f"parameters must {wanted}, got shape {tuple(iterate.shape)}")
        if self.unit.ndim and self.unit.shape != iterate.shape:
            raise ValueError(f"got {len(iterate)} parameters, but units for {self.unit.numel()}")
        if not bool(iterate.isfinite().all()):
            raise ValueError(f"a parameter is not finite after step {self.step + 1}")
        self.step += 1
        self.pending.append(iterate)
        if len(self.pending) == self.stride:
            self.iterates.append(torch.stack(self.pending).mean(0))
            self.pending = []
        if len(self.iterates) == self.max_iterates:
            self.iterates = list(torch.stack(self.iterates).unflatten(0, (-1, 2)).mean(1))
            self.stride *= 2
        return self.step % self.check_interval == 0 and self.status().stop

    def status(self) -> ConvergenceStatus:
        """Return whether the iterates so far have converged, and how precise their average is."""
        found = None
        if len(self.iterates) >= self.min_window:
            found = average_best_window(torch.stack(self.iterates), self.min_window, self.max_r_hat, self.unit)
        if found is None:
            return ConvergenceStatus(False, self.step, None, self.step, math.inf, self.tolerance, self.confidence)
        tail = (1 - self.confidence) / 2 / len(found.mean)
        z = -torch.special.ndtri(torch.tensor(tail, dtype=torch.float64))
        half_width = (z * found.standard_error / self.unit).max().item()
        stop = half_width <= self.tolerance and found.effective_sample_size.min().item() >= MIN_EFFECTIVE_SIZE
        start = self.stride * (len(self.iterates) - found.num_iterates) + 1
        return ConvergenceStatus(stop, self.step, found, start, half_width, self.tolerance, self.confidence)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, without the options."""
        lists = {"iterates": self.iterates, "pending": self.pending}
        stacked = {name: torch.stack(tensors) if tensors else torch.zeros(0) for name, tensors in lists.items()}
        return {"step": self.step, "stride": self.stride, **stacked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.step, self.stride = state["step"], state["stride"]
        self.iterates, self.pending = (list(state[name].clone()) for name in ("iterates", "pending"))
