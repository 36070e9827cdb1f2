import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from zoo.gradients.graphs._repeatability import GeneratorStates, undo_unused_loader_seeds

Result = TypeVar("Result")

MIN_PATHS_TO_ESTIMATE = 256
"""Paths to enumerate before the size of the tree is estimated from the current path."""
_MAX_FACTORS = 5  # of the product in an error message


class DeadEndError(BaseException):
    """The current path has probability 0 and is abandoned.

    Not an ``Exception``, so that ``except Exception`` in the user's code does not catch it.
    """


class _Choice(NamedTuple):
    name: str
    size: int
    taken: int


class Path:
    """One path through a tree of choices, from the root to a leaf; ``next`` advances it in depth-first order.

    The tree itself is never built: it is discovered by running the program, which calls ``choose`` at each node.

    Args:
        max_outcomes: maximum number of paths, and of branches of one choice.
        not_repeatable: message of the error if the choices change when the same branches are taken.
        remedy: end of the message of the error if there are too many paths.
    """

    def __init__(self, max_outcomes: int, not_repeatable: str, remedy: str):
        self.max_outcomes = max_outcomes
        self.not_repeatable = not_repeatable
        self.remedy = remedy
        self.choices: list[_Choice] = []
        self.depth = 0
        self.num_finished = 0

    def choose(self, name: str, size: int) -> int:
        """Return the index of the branch to take, out of ``size``."""
        self.check_size(name, size)
        if self.depth == len(self.choices):
            self.choices.append(_Choice(name, size, 0))
        choice = self.choices[self.depth]
        if (choice.name, choice.size) != (name, size):
            raise ValueError(self.not_repeatable)
        self.depth += 1
        return choice.taken

    def check_size(self, name: str, size: int) -> None:
        """Raise an error if a single choice has more than ``max_outcomes`` branches."""
        if size > self.max_outcomes:
            too_many = f"{_readable(size)} outcomes, more than {self.max_outcomes}"
            raise ValueError(f"{name!r} alone has {too_many}; {self.remedy}")

    def finish(self) -> None:
        """Count the finished path; raise an error if it is shorter than before, or there are too many."""
        if self.depth < len(self.choices):
            raise ValueError(self.not_repeatable)
        self.num_finished += 1
        exceeded = self.num_finished > self.max_outcomes
        estimate = math.prod(choice.size for choice in self.choices)  # if all paths are as long as this one
        if exceeded or (self.num_finished >= MIN_PATHS_TO_ESTIMATE and estimate > self.max_outcomes):
            message = f"there {'are' if exceeded else 'may be'} more than {self.max_outcomes} outcomes"
            if estimate > self.max_outcomes:
                factors = [f"{_readable(choice.size)} ({choice.name})" for choice in self.choices if choice.size > 1]
                product = " · ".join(factors[:_MAX_FACTORS] + ["…"] * (len(factors) > _MAX_FACTORS))
                message += f": if all runs are as long as this one there are {_readable(estimate)}, {product}"
            raise ValueError(f"{message}; {self.remedy}")

    def next(self) -> bool:
        """Backtrack to the last choice with an untaken branch and take it; return False if there is none."""
        self.depth = 0
        while self.choices and self.choices[-1].taken + 1 == self.choices[-1].size:
            self.choices.pop()
        if not self.choices:
            return False
        self.choices[-1] = self.choices[-1]._replace(taken=self.choices[-1].taken + 1)
        return True


def enumerate_paths(
    run: Callable[[Path], Result],
    max_outcomes: int,
    not_repeatable: str,
    remedy: str = "increase max_outcomes",
    same: Callable[[Result, Result], bool] | None = None,
) -> Iterator[Result]:
    """Yield the result of each path that is no dead end; see ``Path``.

    Apart from the choices, all runs must be the same. If ``same`` is given, the first and the last path are run a
    second time, and ``same`` compares the results.

    Example:
        >>> def run(path):
        ...     stop = path.choose("first", 2)
        ...     return "stopped" if stop else path.choose("second", 3)
        >>> list(enumerate_paths(run, max_outcomes=10, not_repeatable="the program is random"))
        [0, 1, 2, 'stopped']
    """
    path, unfinished = Path(max_outcomes, not_repeatable, remedy), True
    repeated: list[tuple[list[_Choice], Result]] = []  # the first and the latest path
    while unfinished:
        results = _run_path(run, path)
        path.finish()
        if results and same is not None:
            repeated[1:] = [(list(path.choices), results[0])]
        yield from results
        unfinished = path.next()
    for choices, result in repeated:
        path = Path(max_outcomes, not_repeatable, remedy)
        path.choices = choices
        again = _run_path(run, path)
        if not again or path.depth < len(choices) or (same is not None and not same(result, again[0])):
            raise ValueError(not_repeatable)


def _run_path(run: Callable[[Path], Result], path: Path) -> list[Result]:
    """Return a list with the result of a path; it is empty for a dead end."""
    results: list[Result] = []
    before = GeneratorStates()
    with suppress(DeadEndError), undo_unused_loader_seeds():
        results.append(run(path))
    if before.have_advanced():
        raise ValueError(path.not_repeatable)
    return results


def _readable(count: int) -> str:
    return str(count) if count < 10**12 else f"10^{math.log10(count):.0f}"
