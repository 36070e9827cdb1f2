import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import greedy_policy, policy_evaluation, start_value, value_iteration
from zoo.control.envs.vector_env import Environments
from zoo.control.q_learning.module import QLearning
from zoo.control.rollout import Rollouts
from zoo.stats import bootstrap_interval, mean

NO_LIMIT = 10**9  # rollouts: episodes are counted

# How much each explores, from nearly uniform to nearly greedy; the numbers mean something else for each, see
# ``EXPLORATIONS``. Of about ten such ways each the one with the least regret on seeds 101 to 104.
SCHEDULES: dict[str, dict[str, Any]] = {
    "epsilon_greedy": {"initial": 1.0, "final": 0.01, "steps": 100_000, "schedule": "geometric"},
    "boltzmann": {"initial": 1.0, "final": 0.001, "steps": 50_000, "schedule": "geometric"},
    "proportional": {"initial": 0.0, "final": 20.0, "steps": 100_000, "schedule": "linear"},
}


class Regret(NamedTuple):
    """What it cost to learn, after each rollout."""

    env_steps: Float[np.ndarray, " rollouts"]
    """Environment steps so far, without those that only reset."""
    episodes: Float[np.ndarray, " rollouts"]
    """Episodes begun so far."""
    cumulative: Float[np.ndarray, " rollouts"]
    """Sum over these episodes of ``V*(s_0) - V^π(s_0)``, with ``π`` the exploring policy under which each began."""
    greedy_gap: Float[np.ndarray, " rollouts"]
    """``V*(s_0) - V^π(s_0)`` of the greedy policy before the rollout."""


def learning_regret(
    mdp: FiniteMDP,
    exploration: str,
    episodes: int,
    seed: int,
    num_envs: int = 256,
    train_freq: int = 4,
    **options: Any,
) -> Regret:
    """Learn a table by Q-learning, and sum up what exploring and not yet knowing cost.

    The values are solved for, of endless discounted episodes as everywhere here: no return is sampled, and that
    episodes are cut at the horizon plays no part. The policy changes between rollouts alone, so that all episodes
    begun in one began under the same; an episode counts once, when it begins.

    Args:
        mdp: the process.
        exploration: a name of ``SCHEDULES``.
        episodes: after as many, and the end of that rollout, it ends.
        seed: of environments and actions; the global random state is left alone.
        num_envs: episodes under way at once.
        train_freq: steps of each between two updates of the table.
        options: of ``QLearning``, in the place of the defaults and of the schedule.

    Raises:
        ValueError: there is no such exploration, or ``episodes`` is not positive.

    Example:
        >>> import gymnasium
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
        >>> regret = learning_regret(lake, "boltzmann", episodes=500, seed=1)
        >>> round(regret.cumulative[0] / regret.episodes[0], 2)  # a uniform policy gets hardly any of V* = 0.542
        np.float64(0.53)
    """
    if exploration not in SCHEDULES:
        raise ValueError(f"there is no exploration {exploration!r}; choose one of {', '.join(SCHEDULES)}")
    if episodes < 1:
        raise ValueError(f"regret is summed over 1 or more episodes, got {episodes}")
    schedule = {f"exploration_{name}": value for name, value in SCHEDULES[exploration].items()}
    options = {"gamma": mdp.gamma, "exploration": exploration, **schedule, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = QLearning(mdp.states, mdp.actions, **options)
        acting = Environments(MDPVectorEnv(mdp, num_envs))
        rollouts = Rollouts(acting, module.policy, train_freq, rollouts=NO_LIMIT, seed=seed)
        return watched(module, rollouts, mdp, episodes)


def watched(module: QLearning, rollouts: Rollouts, mdp: FiniteMDP, episodes: int) -> Regret:
    """Learn from rollouts until enough episodes have begun, and note what each rollout's policies are worth."""
    optimizer: Any = module.configure_optimizers()
    optimum, begun, cumulative, notes = value_iteration(mdp).amax(-1), 0, 0.0, []
    exploring, greedy = start_gaps(module, mdp, optimum)
    for batch in rollouts:
        rollout = batch.rollout
        new = int((rollout.valid & (rollout.elapsed == 0)).sum())
        begun, cumulative = begun + new, cumulative + new * exploring
        notes.append((batch.env_steps, begun, cumulative, greedy))
        if begun >= episodes:
            break
        for transitions in module.batches(rollout):
            optimizer.zero_grad()
            module.loss(transitions).backward()
            optimizer.step()
        module.policy.strength.fill_(module.schedule(batch.env_steps))
        exploring, greedy = start_gaps(module, mdp, optimum)
    return Regret(*np.array(notes, dtype=np.float64).T)


@torch.no_grad()
def start_gaps(module: QLearning, mdp: FiniteMDP, optimum: Float[Tensor, " states"]) -> tuple[float, float]:
    """``V*(s_0) - V^π(s_0)`` of the exploring policy, and of the greedy one."""
    states, table = torch.arange(mdp.states), module.policy.q
    policies = module.policy.probabilities(states), greedy_policy(table(states).to(optimum.dtype))
    values = [policy_evaluation(mdp, policy.to(optimum.dtype)) for policy in policies]
    exploring, greedy = (float(start_value(mdp, optimum - value)) for value in values)
    return exploring, greedy


def write_csv(path: Path, seeds: Sequence[int], runs: Mapping[str, Sequence[Regret]]) -> None:
    """Write a line for each rollout of each run, under the names of ``Regret``."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["exploration", "seed", *Regret._fields])
        for name, of_name in runs.items():
            for seed, run in zip(seeds, of_name, strict=True):
                table.writerows([name, seed, *row] for row in zip(*run, strict=True))


def summary(name: str, runs: Sequence[Regret]) -> str:
    """Say in a sentence what the runs of an exploration cost, and where they ended.

    Example:
        >>> one = np.ones(1)
        >>> summary("boltzmann", [Regret(900 * one, 100 * one, 25 * one, 0 * one)])
        'boltzmann: regret 25 after 100 episodes (1 seed); the greedy policy ends 0.0000 below the best one on average'
    """
    regret = np.array([[run.cumulative[-1]] for run in runs])
    spread = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    if len(runs) > 1:
        low, high = bootstrap_interval(regret, mean)
        spread += f", 95 % interval {low[0]:,.0f} to {high[0]:,.0f}"
    episodes, gap = np.mean([run.episodes[-1] for run in runs]), np.mean([run.greedy_gap[-1] for run in runs])
    return (
        f"{name}: regret {regret.mean():,.0f} after {episodes:,.0f} episodes ({spread}); "
        f"the greedy policy ends {gap:.4f} below the best one on average"
    )
