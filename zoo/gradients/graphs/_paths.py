import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from zoo.gradients.graphs._repeatability import GeneratorStates, loader_seeds_undrawn

Result = TypeVar("Result")

PATIENCE = 256
"""Paths to go along before one that is long is taken for one of too many."""
FACTORS = 5
"""Most sizes that an error lists."""


class DeadEndError(BaseException):
    """What was chosen is impossible: what would follow counts for nothing.

    Not an ``Exception``, for it passes through code of the user's, whose ``except Exception`` is not meant for it.
    """


class Wording(NamedTuple):
    """What errors say of whoever makes the choices."""

    unrepeatable: str
    """The choices are not the same when the same ones were taken before."""
    remedy: str
    """What helps if there are too many."""


class Choice(NamedTuple):
    """One of several branches of a path."""

    name: str
    size: int
    """How many branches there are."""
    taken: int


class Path:
    """A way through a tree of choices that shows no more of itself than where one goes; leads along all, depth first.

    It keeps the choices of the present way, and how many ways were gone.

    Args:
        limit: most ways to go, and most branches of one choice.
        wording: of the errors.
    """

    def __init__(self, limit: int, wording: Wording):
        self.limit = limit
        self.wording = wording
        self.choices: list[Choice] = []
        self.depth = 0
        self.gone = 0

    def choose(self, name: str, size: int) -> int:
        """Tell which of so many branches to take.

        Raises:
            ValueError: there are more than the limit, or another choice was met here before.
        """
        self.check_size(name, size)
        if self.depth == len(self.choices):
            self.choices.append(Choice(name, size, 0))
        choice = self.choices[self.depth]
        if (choice.name, choice.size) != (name, size):
            raise ValueError(self.wording.unrepeatable)
        self.depth += 1
        return choice.taken

    def check_size(self, name: str, size: int) -> None:
        """Raise an error if a single choice has more branches than the limit."""
        if size > self.limit:
            raise ValueError(
                f"{name!r} alone has {readable(size)} outcomes, and the limit is {self.limit}; {self.wording.remedy}"
            )

    def end(self) -> None:
        """Note that the way has come to its end.

        Raises:
            ValueError: it is shorter than before, or there are more ways than the limit.
        """
        if self.depth < len(self.choices):
            raise ValueError(self.wording.unrepeatable)
        self.gone += 1
        alike = math.prod(choice.size for choice in self.choices)
        if self.gone > self.limit or (self.gone >= PATIENCE and alike > self.limit):
            raise ValueError(self.too_many(alike))

    def too_many(self, alike: int) -> str:
        """Sentence for a path after which there are, or may be, more than the limit."""
        sentence = f"there {'are' if self.gone > self.limit else 'may be'} more than {self.limit} outcomes"
        if alike > self.limit:
            factors = [f"{readable(choice.size)} ({choice.name})" for choice in self.choices if choice.size > 1]
            listed = " · ".join(factors[:FACTORS] + ["…"] * (len(factors) > FACTORS))
            sentence += f": if all runs are as long as this one there are {readable(alike)}, {listed}"
        return f"{sentence}; {self.wording.remedy}"

    def advance(self) -> bool:
        """Go back to the last choice that has a branch left, and take it; tell whether there is one."""
        self.depth = 0
        while self.choices and self.choices[-1].taken + 1 == self.choices[-1].size:
            self.choices.pop()
        if not self.choices:
            return False
        last = self.choices[-1]
        self.choices[-1] = last._replace(taken=last.taken + 1)
        return True


def along_every_path(
    run: Callable[[Path], Result],
    limit: int,
    wording: Wording,
    same: Callable[[Result, Result], bool] | None = None,
) -> Iterator[Result]:
    """Give what comes of each path, but for dead ends.

    Args:
        run: asks the path for each of its choices; all else in it must be the same at each call.
        limit: most paths.
        wording: of the errors.
        same: compares two results of one path; if given, the first and the last path are gone a second time.

    Raises:
        ValueError: there are more paths than the limit, or they are not always the same; or random numbers were drawn.

    Example:
        >>> def run(path):
        ...     stop = path.choose("first", 2)
        ...     return "stopped" if stop else path.choose("second", 3)
        >>> list(along_every_path(run, limit=10, wording=Wording("it changed its mind", "ask for less")))
        [0, 1, 2, 'stopped']
    """
    path, going = Path(limit, wording), True
    gone: list[tuple[list[Choice], Result]] = []
    while going:
        results = go(run, path)
        path.end()
        if results and same is not None:
            gone[1:] = [(list(path.choices), results[0])]
        yield from results
        going = path.advance()
    for choices, result in gone:
        path = Path(limit, wording)
        path.choices = choices
        again = go(run, path)
        if not again or path.depth < len(choices) or (same is not None and not same(result, again[0])):
            raise ValueError(wording.unrepeatable)


def go(run: Callable[[Path], Result], path: Path) -> list[Result]:
    """Go one way; return what comes of it, if it is no dead end."""
    results: list[Result] = []
    before = GeneratorStates()
    with suppress(DeadEndError), loader_seeds_undrawn():
        results.append(run(path))
    if before.have_moved():
        raise ValueError(path.wording.unrepeatable)
    return results


def readable(count: int) -> str:
    """Write a number that may have more digits than anyone reads."""
    return str(count) if count < 10**12 else f"10^{math.log10(count):.0f}"
