import math
from collections.abc import Iterator

import torch
from jaxtyping import Int64
from numpy.random import SeedSequence
from torch import Tensor

from zoo.data.images import ImageSet, LabelledImages


class Batches:
    """Batches of a set that lies in memory: selection by index, no worker processes.

    Without a seed the pictures come in order, and the shares of the ranks are disjoint and cover the set, so
    that sums over ranks are exact; shares may differ by one picture. With a seed each epoch has an order of
    its own, which depends on seed and epoch alone, and its first pictures are repeated until all shares are
    equally long, so that all ranks make the same number of steps. The last batch may be smaller either way.

    Every pass goes through the epoch last set; ``set_epoch`` chooses another. ``state_dict`` says how many
    batches of the epoch were given, and the first pass after ``load_state_dict`` goes on behind them. Where
    several passes are under way, the one that gave a batch last counts.

    Args:
        data: the pictures and their labels.
        batch_size: pictures in a batch, on each rank.
        seed: of the shuffle; None to keep the order. The global random state is neither used nor changed.
        rank: which of the ``world_size`` shares to give.
        world_size: how many processes share the set.

    Raises:
        ValueError: the set is empty, or a number is out of its range.

    Example:
        >>> digits = ImageSet(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.tensor([3, 1, 4, 1, 5]))
        >>> [labels.tolist() for images, labels in Batches(digits, batch_size=2)]
        [[3, 1], [4, 1], [5]]
    """

    # Lightning calls `loader.sampler.set_epoch` before each epoch, and looks for `batch_sampler` wherever it
    # finds `sampler`.
    batch_sampler = None

    def __init__(self, data: ImageSet, batch_size: int, seed: int | None = None, rank: int = 0, world_size: int = 1):
        if len(data) == 0:
            raise ValueError("there are no pictures to make batches of")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if seed is not None and seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1, got {rank} of {world_size}")
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.given = 0
        self.start = 0

    @property
    def sampler(self) -> "Batches":
        """The object whose ``set_epoch`` is to be called: this one."""
        return self

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever the next pass begins."""
        share = len(range(self.rank, self.total(), self.world_size))
        return math.ceil(share / self.batch_size)

    def __iter__(self) -> Iterator[LabelledImages]:
        # Nothing is read until a batch is asked for: Lightning makes the iterator before it sets the epoch.
        start, self.start = self.start, 0
        share = self.share()
        for batch in range(start, len(self)):
            self.given = batch + 1
            yield self.data[share[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the epoch that is set already stays where it is."""
        if epoch != self.epoch:
            self.epoch, self.given, self.start = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Give the epoch and how many of its batches were given."""
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass go on where the state was taken.

        Raises:
            ValueError: the state belongs to more batches than there are.
        """
        if not 0 <= state["given"] <= len(self):
            raise ValueError(
                f"{state['given']} batches of the epoch were given, but it has {len(self)}; "
                "resume with the data, batch size and number of processes of the run that was interrupted"
            )
        self.epoch, self.given, self.start = state["epoch"], state["given"], state["given"]

    def total(self) -> int:
        """Count the pictures in all shares together, with the repeated ones."""
        if self.seed is None:
            return len(self.data)
        return math.ceil(len(self.data) / self.world_size) * self.world_size

    def share(self) -> Int64[Tensor, " share"]:
        """Give the indices of this rank's pictures, in the order of the epoch."""
        position = torch.arange(self.total())[self.rank :: self.world_size]
        if self.seed is None:
            return position
        mixed = SeedSequence(self.seed, spawn_key=(self.epoch,)).generate_state(1, "uint64").item()
        generator = torch.Generator().manual_seed(mixed)
        return torch.randperm(len(self.data), generator=generator)[position % len(self.data)]
