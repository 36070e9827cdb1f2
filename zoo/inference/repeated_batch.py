from collections.abc import Iterator, Sequence
from typing import Any


class Steps:
    """An epoch of so many steps, each with the same arguments.

    ``state_dict`` says how many of them were given, and the first pass after ``load_state_dict`` gives the rest.

    Args:
        args: of model and guide.
        count: steps in an epoch.

    Example:
        >>> list(Steps((1, 2), 3))
        [(1, 2), (1, 2), (1, 2)]
    """

    def __init__(self, args: Sequence[Any], count: int):
        self.args, self.count = tuple(args), count
        self.given = self.start = 0

    def __len__(self) -> int:
        """Count the steps in a whole epoch, wherever the next pass begins."""
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        start, self.start = self.start, 0
        for step in range(start, self.count):
            self.given = step + 1
            yield self.args

    def state_dict(self) -> dict[str, int]:
        """Give how many steps of the epoch were given."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass go on where the state was taken; after the last step that is a new epoch."""
        self.given = state["given"]
        self.start = self.given % self.count
