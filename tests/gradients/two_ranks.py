"""What one of two ranks learns: `python two_ranks.py folder rank` writes it to `folder/rank.pt`."""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from zoo.gradients import MovingAverageBaseline, RunningStd


def part_of_batches(rank: int) -> list[dict[str, torch.Tensor]]:
    """Uneven parts, of the last of which all that the second rank holds is masked."""
    generator = torch.Generator().manual_seed(rank)
    sizes = [(5, 2), (1, 6), (4, 3)]
    parts = []
    for i, size in enumerate(size[rank] for size in sizes):
        signal = 3 * torch.randn(size, 2, dtype=torch.float64, generator=generator) + 10 * rank
        mask = torch.rand(size, 2, generator=generator) < 0.7
        mask[0] = not (i == 2 and rank == 1)
        mask = mask & mask[:1]
        parts.append({"signal": signal.where(mask, torch.nan), "mask": mask})
    return parts


def learn(batches: list[dict[str, torch.Tensor]]) -> tuple[MovingAverageBaseline, RunningStd]:
    average, scale = MovingAverageBaseline().double(), RunningStd().double()
    for batch in batches:
        average(**batch)
        scale.update(batch["signal"], batch["mask"])
    return average, scale


def main(folder: Path, rank: int) -> None:
    batches = part_of_batches(rank)
    alone, _ = learn(batches)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    average, scale = learn(batches)
    before = copy.deepcopy(average.state_dict())
    average(torch.full((rank, 2), torch.nan), mask=torch.zeros(rank, 2, dtype=torch.bool))
    average.eval()
    if rank == 0:  # no rank waits for the others in eval mode
        average(**batches[0])
    results = {
        "batches": batches,
        "moving average": average.state_dict(),
        "scale": scale.state_dict(),
        "moving average, alone": alone.state_dict(),
        "unchanged by a masked batch and in eval mode": all(
            torch.equal(x, before[name]) for name, x in average.state_dict().items()
        ),
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
