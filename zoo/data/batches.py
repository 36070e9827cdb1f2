import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from numpy.random import SeedSequence
from torch import Tensor


@runtime_checkable
class _IndexedSet(Protocol):
    """Set whose examples are selected by index, as ``ImageSet``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Int64[Tensor, " batch"]) -> Any: ...


class Batches:
    """Data loader for a set in memory: it selects batches by index, without worker processes, and resumes exactly.

    Without a seed the images are in order, and the ranks' shares are disjoint and cover the set: sums over ranks
    are exact. With a seed the order depends on seed and epoch only, and some images are repeated to give all ranks
    equally many batches. The last batch may be smaller.

    The order is that of the epoch set by ``set_epoch``. The first pass after ``load_state_dict`` yields the remaining
    batches of the saved epoch. With several iterators, the state is that of the one that yielded last.

    Args:
        data: images and labels, or another set whose batches are selected by a tensor of indices.
        batch_size: images in a batch, on each rank.
        seed: seed of the shuffle; None to keep the order. The global random state is neither used nor changed.
        rank: index of this process.
        world_size: number of processes that share the set.

    Raises:
        ValueError: the set is empty, or a number is out of its range.

    Example:
        >>> from zoo.data import ImageSet
        >>> digits = ImageSet(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.tensor([3, 1, 4, 1, 5]))
        >>> [labels.tolist() for images, labels in Batches(digits, batch_size=2)]
        [[3, 1], [4, 1], [5]]
    """

    # Lightning calls `loader.sampler.set_epoch` before each epoch, and expects a `batch_sampler` beside a `sampler`.
    batch_sampler = None

    def __init__(self, data: _IndexedSet, batch_size: int, seed: int | None = None, rank: int = 0, world_size: int = 1):
        if len(data) == 0:
            raise ValueError("the set has no images")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if seed is not None and seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1, got {rank} of {world_size}")
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.num_yielded = self._start = 0

    @property
    def sampler(self) -> "Batches":
        """Object whose ``set_epoch`` Lightning calls: this loader."""
        return self

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch, wherever the next pass starts."""
        share = len(range(self.rank, self._padded_size(), self.world_size))
        return math.ceil(share / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        # The state is read when the first batch is requested: Lightning creates the iterator before it sets the epoch.
        start, self._start = self._start, 0
        indices = self._indices()
        for batch in range(start, len(self)):
            self.num_yielded = batch + 1
            yield self.data[indices[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, and start it anew unless it is the current one."""
        if epoch != self.epoch:
            self.epoch, self.num_yielded, self._start = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of batches yielded in it."""
        return {"epoch": self.epoch, "num_yielded": self.num_yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a saved state in the next pass."""
        if not 0 <= state["num_yielded"] <= len(self):
            raise ValueError(
                f"the state has {state['num_yielded']} batches of an epoch, but an epoch has {len(self)}; "
                "resume with the data, batch size and number of processes of the interrupted run"
            )
        self.epoch, self.num_yielded, self._start = state["epoch"], state["num_yielded"], state["num_yielded"]

    def _padded_size(self) -> int:
        """Return the number of images in the shares of all ranks, including repeated ones."""
        if self.seed is None:
            return len(self.data)
        return math.ceil(len(self.data) / self.world_size) * self.world_size

    def _indices(self) -> Int64[Tensor, " share"]:
        """Return the indices of this rank's images in the current epoch, in order."""
        position = torch.arange(self._padded_size())[self.rank :: self.world_size]
        if self.seed is None:
            return position
        return torch.randperm(len(self.data), generator=self._generator())[position % len(self.data)]

    def _generator(self) -> torch.Generator:
        """Return the generator of an epoch's order."""
        mixed = SeedSequence(self.seed, spawn_key=(self.epoch,)).generate_state(1, "uint64").item()
        return torch.Generator().manual_seed(mixed)
