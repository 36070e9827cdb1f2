from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from examples.patients.chain import Chain, State, stack_states


class TimeBudgetError(Exception):
    """Raised by the hook to stop NUTS."""


def nuts(
    potential: Callable[[dict[str, Tensor]], Tensor],
    start: State,
    warm_up: int,
    draws: int,
    seed: int,
    seconds: float = float("inf"),
    max_tree_depth: int = 10,
) -> Chain:
    """Run Pyro's NUTS on unconstrained variables: Hoffman & Gelman, "The No-U-Turn sampler", 2014.

    The first ``warm_up`` states of the chain are those of the warm-up, or fewer if the time is over before.

    Args:
        potential: minus the log density in nats, including the Jacobian of the transform.
        start: initial values of all variables.
        warm_up: number of states in which step size and mass matrix are adapted.
        draws: number of states after the warm-up.
        seed: seed of all samples; the global random state is not used.
        seconds: time limit; at least one state is returned.
        max_tree_depth: maximum tree depth, at most ``2 ** max_tree_depth`` gradients per state.

    Raises:
        ValueError: a number is out of range.
    """
    if warm_up < 0 or draws < 1 or max_tree_depth < 1:
        raise ValueError(
            f"warm_up must be 0 or more, draws and max_tree_depth at least 1, got {warm_up}, {draws}, {max_tree_depth}"
        )
    began = perf_counter()
    kept: list[dict[str, Tensor]] = []
    stamps: list[float] = []

    def note(kernel: Any, state: State, stage: str, i: int) -> None:
        kept.append({name: value.detach().clone() for name, value in state.items()})
        stamps.append(perf_counter() - began)
        if stamps[-1] >= seconds:
            raise TimeBudgetError

    kernel = NUTS(potential_fn=potential, max_tree_depth=max_tree_depth)
    chain = MCMC(kernel, draws, warmup_steps=warm_up, initial_params=dict(start), hook_fn=note, disable_progbar=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with suppress(TimeBudgetError):
            chain.run()
    return stack_states(kept, stamps)
