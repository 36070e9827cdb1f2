from collections.abc import Iterator, Sequence
from typing import Any


class RepeatedBatch:
    """A loader that yields the same batch, the arguments of model and guide, in each step of an epoch.

    After ``load_state_dict``, the first pass yields the remaining steps of the interrupted epoch.

    Args:
        args: arguments of model and guide.
        num_steps: steps per epoch.

    Example:
        >>> list(RepeatedBatch((1, 2), 3))
        [(1, 2), (1, 2), (1, 2)]
    """

    def __init__(self, args: Sequence[Any], num_steps: int):
        self.args, self.num_steps = tuple(args), num_steps
        self.num_yielded = self.start = 0

    def __len__(self) -> int:
        """Return the number of steps of a whole epoch."""
        return self.num_steps

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        start, self.start = self.start, 0
        for step in range(start, self.num_steps):
            self.num_yielded = step + 1
            yield self.args

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps yielded in this epoch."""
        return {"num_yielded": self.num_yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the steps already yielded; after the last step, with a new epoch."""
        self.num_yielded = state["num_yielded"]
        self.start = self.num_yielded % self.num_steps


def unpack_batch(batch: Any) -> tuple[Any, ...]:
    """Return the elements of a tuple or list; any other object is a single argument."""
    return tuple(batch) if type(batch) in (tuple, list) else (batch,)
