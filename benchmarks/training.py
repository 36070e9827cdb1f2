import statistics
import time
from collections.abc import Callable

import torch
from plain_ram import PlainRAM
from torch import Tensor, nn

from zoo.attention import RecurrentAttention

Batch = tuple[Tensor, Tensor]
GRADIENT_CLIP = 5.0


def our_step(model: RecurrentAttention, batch: Batch) -> Callable[[], Tensor]:
    """Return a function that does a training step of our model: forward, backward, clipping, AdamW."""
    return make_step(model, model.configure_optimizers()["optimizer"], lambda: model.training_step(batch, batch_idx=1))


def plain_step(plain: PlainRAM, batch: Batch, like: RecurrentAttention) -> Callable[[], Tensor]:
    """Return a function that does a training step of the plain model, with the options of ours."""
    images, labels = batch
    num_steps = like.hparams["num_glimpses"] - 1

    def loss() -> Tensor:
        first = torch.rand(len(images), 2) * 2 - 1
        return plain.loss(images, labels, first, [torch.randn(len(images), 2) for _ in range(num_steps)])

    options = {name: like.hparams[name] for name in ("lr", "weight_decay")}
    return make_step(plain, torch.optim.AdamW(plain.parameters(), **options), loss)


def make_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, compute_loss: Callable[[], Tensor]
) -> Callable[[], Tensor]:
    """Return a function that does a step and returns its loss."""

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = compute_loss()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
        optimizer.step()
        return loss.detach()

    return step


def medians(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median seconds of each call. The calls alternate, so that other load affects all of them equally."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[rounds // 10 :]) for taken in seconds]  # the first rounds are a warm-up
