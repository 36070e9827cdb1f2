from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

State = Mapping[str, Tensor]


class Chain(NamedTuple):
    """Stored states of a Markov chain, with their times."""

    draws: dict[str, Tensor]
    """Each ``(draws, *shape)``."""
    seconds: Float64[Tensor, " draws"]
    """Wall clock since the chain began."""


def run_chain(states: Iterator[State], sweeps: int, thin: int = 1, seconds: float = float("inf")) -> Chain:
    """Run a chain and store every ``thin``-th state, up to a number of sweeps or a time limit.

    At least one state is stored.

    Raises:
        ValueError: ``thin`` is not positive, or larger than ``sweeps``.

    Example:
        >>> counting = ({"n": torch.tensor(n)} for n in range(1, 100))
        >>> run_chain(counting, sweeps=6, thin=2).draws["n"]
        tensor([2, 4, 6])
    """
    if not 1 <= thin <= sweeps:
        raise ValueError(f"thin must lie between 1 and the number of sweeps, got {thin} and {sweeps}")
    start = perf_counter()
    kept: list[dict[str, Tensor]] = []
    stamps: list[float] = []
    for sweep, state in zip(range(1, sweeps + 1), states, strict=False):
        now = perf_counter() - start
        if sweep % thin == 0 or (now >= seconds and not kept):
            kept.append(dict(state))
            stamps.append(now)
        if now >= seconds:
            break
    return stack_states(kept, stamps)


def stack_states(states: list[dict[str, Tensor]], seconds: list[float]) -> Chain:
    """Stack states along a new first dimension."""
    draws = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    return Chain(draws, torch.tensor(seconds, dtype=torch.float64))
