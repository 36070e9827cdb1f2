from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from examples.patients.chain import State

# Of one variable at a time: Gelman, Roberts & Gilks, "Efficient Metropolis jumping rules", 1996.
TARGET_ACCEPTANCE = 0.44
START_SCALE = 0.1
ADAPTATION_DECAY = 0.6


class Block(NamedTuple):
    """Variables that are proposed together and accepted one by one; they must be conditionally independent."""

    variable: str
    chosen: Bool[Tensor, "*shape"]
    """Which elements of the variable."""
    positive: bool
    """Steps multiply; else they add."""
    log_density: Callable[[State], Tensor]
    """Log density of each element conditional on all other variables, up to a constant."""


def metropolis_within_gibbs(start: State, blocks: Sequence[Block], warm_up: int, seed: int) -> Iterator[State]:
    """Yield the state after each sweep over the blocks, indefinitely.

    Random-walk Metropolis, one variable at a time. Each element has its own step length, which is adapted to an
    acceptance rate of 0.44 during warm-up.

    Args:
        start: initial values of all variables.
        blocks: blocks of a sweep, in order.
        warm_up: number of sweeps with adaptation, which are yielded too.
        seed: seed of all samples; the global random state is not used.

    Raises:
        ValueError: the density of a variable is not finite at the start, or ``warm_up`` is negative.

    Example:
        >>> everything = torch.tensor([True])
        >>> normal = Block("x", everything, False, lambda state: -state["x"].square() / 2)
        >>> chain = metropolis_within_gibbs({"x": torch.zeros(1)}, [normal], warm_up=10, seed=0)
        >>> next(chain)["x"].shape
        torch.Size([1])
    """
    if warm_up < 0:
        raise ValueError(f"warm_up must be 0 or more, got {warm_up}")
    for block in blocks:
        if not block.log_density(start)[block.chosen].isfinite().all():
            raise ValueError(f"the chain starts where {block.variable} has no finite density; give another start")
    return sweeps(dict(start), blocks, warm_up, seed)


def sweeps(state: dict[str, Tensor], blocks: Sequence[Block], warm_up: int, seed: int) -> Iterator[State]:
    """Yield states indefinitely; see ``metropolis_within_gibbs``."""
    generator = torch.Generator(next(iter(state.values())).device).manual_seed(seed)
    log_scales = [torch.full_like(state[block.variable], START_SCALE).log() for block in blocks]
    sweep = 0
    while True:
        sweep += 1
        for block, log_scale in zip(blocks, log_scales, strict=True):
            value, accepted = step(state, block, log_scale.exp(), generator)
            state = {**state, block.variable: value}
            if sweep <= warm_up:
                log_scale += sweep**-ADAPTATION_DECAY * (accepted.to(log_scale.dtype) - TARGET_ACCEPTANCE)
        yield state


def step(state: State, block: Block, scale: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Propose new values of the chosen elements of a variable, and accept or reject each.

    Proposals with infinite density are rejected, since the chain would never leave them: a gamma with shape below 1 has
    infinite density at 0, to which small values underflow.

    Returns:
        The variable, and a mask of the accepted elements.
    """
    value = state[block.variable]
    noise = torch.randn(value.shape, generator=generator, dtype=value.dtype, device=value.device) * scale
    proposal = torch.where(block.chosen, value * noise.exp() if block.positive else value + noise, value)
    # The density of log x is that of x times x.
    jacobian = noise if block.positive else 0.0
    proposed = block.log_density({**state, block.variable: proposal})
    log_ratio = proposed - block.log_density(state) + jacobian
    uniform = torch.rand(value.shape, generator=generator, dtype=value.dtype, device=value.device)
    accepted = block.chosen & proposed.isfinite() & (uniform.log() < log_ratio)
    return torch.where(accepted, proposal, value), accepted
