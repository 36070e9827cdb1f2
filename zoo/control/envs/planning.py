"""Exact solutions of finite Markov decision processes: Bellman, "Dynamic programming", 1957."""

import gymnasium
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.control.envs._bellman import backup, reward_and_discount
from zoo.control.envs.mdp import FiniteMDP, known_dynamics


def bellman_residual(mdp: FiniteMDP, action_values: Float[Tensor, "states actions"]) -> float:
    """Return the Bellman residual ``max |T* Q - Q|``, in units of reward.

    ``max |Q - Q*|`` is at most the residual divided by ``1 - γ``.

    Example:
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
        >>> bellman_residual(lake, value_iteration(lake)) < 1e-9
        True
    """
    return float((backup(mdp, action_values.amax(-1)) - action_values).abs().max())


def value_iteration(
    mdp: FiniteMDP, tolerance: float = 1e-12, max_sweeps: int = 1_000_000
) -> Float[Tensor, "states actions"]:
    """Return the optimal action values without a time limit.

    Repeats ``Q ← Σ_s' P(s' | s, a) (r + γ max_a' Q(s', a'))`` from ``Q = 0`` until it converges. With ``γ = 1`` it
    converges only if no policy can collect rewards forever. The horizon is ignored; see ``finite_horizon``.

    Args:
        mdp: process to solve.
        tolerance: largest change of a value in the last sweep, relative to the largest value (or to 1).
        max_sweeps: number of sweeps after which a ``ValueError`` is raised.

    Example:
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
        >>> round(value_iteration(lake)[0].max().item(), 6)
        0.542026
    """
    reward, discount = reward_and_discount(mdp)
    action_values = torch.zeros_like(reward)
    for _ in range(max_sweeps):
        previous, action_values = action_values, reward + discount @ action_values.amax(-1)
        if (action_values - previous).abs().max() <= tolerance * action_values.abs().max().clamp(min=1):
            return action_values
    raise ValueError(f"value iteration did not converge in {max_sweeps} sweeps with gamma {mdp.gamma}")


def greedy_policy(
    action_values: Float[Tensor, "*states actions"], tolerance: float = 1e-9
) -> Float[Tensor, "*states actions"]:
    """Return the policy that is uniform over the best actions, whose values differ by at most ``tolerance``.

    With ``γ = 1``, a policy that always takes the first of the best actions may loop forever.

    Example:
        >>> greedy_policy(torch.tensor([[1.0, 3.0, 3.0]]))
        tensor([[0.0000, 0.5000, 0.5000]])
    """
    best = (action_values >= action_values.amax(-1, keepdim=True) - tolerance).to(action_values.dtype)
    return best / best.sum(-1, keepdim=True)


def policy_evaluation(mdp: FiniteMDP, policy: Float[Tensor, "states actions"]) -> Float[Tensor, " states"]:
    """Return the exact value of each state under a policy without a time limit: solves ``V = r_π + γ P_π V``.

    The horizon is ignored.

    Raises:
        ValueError: the values are not determined: ``γ = 1``, and the policy never ends the episode from some state.

    Example:
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
        >>> uniform = torch.full((16, 4), 0.25, dtype=torch.float64)
        >>> round(policy_evaluation(lake, uniform)[0].item(), 4)
        0.0124
    """
    reward, discount = reward_and_discount(mdp)
    reward, discount = (policy * reward).sum(-1), torch.einsum("sa, sat -> st", policy, discount)
    ends = discount.sum(-1) < 1 - 1e-9
    if not _transitive_closure(ends, discount.T > 0).all():
        raise ValueError(
            "with gamma 1 the values are not determined: from some state the policy never ends the episode; "
            "choose a smaller gamma, or use finite_horizon"
        )
    return torch.linalg.solve(torch.eye(mdp.num_states, dtype=reward.dtype, device=reward.device) - discount, reward)


def finite_horizon(
    mdp: FiniteMDP, policy: Float[Tensor, "states actions"] | None = None
) -> Float[Tensor, "steps_left states"]:
    """Return the value of each state with ``0, 1, …, horizon`` steps left.

    ``V_0 = 0``, ``V_{k+1}(s) = max_a Σ_s' P(s' | s, a) (r + γ V_k(s'))``; with a policy, the mean over its actions
    replaces the maximum. With ``γ = 1`` these are expected returns under a time limit.

    Raises:
        ValueError: the process has no horizon.

    Example:
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=1.0)
        >>> round(finite_horizon(lake)[-1, 0].item(), 6)
        0.74419
    """
    if mdp.horizon is None:
        raise ValueError("the process has no horizon, which finite_horizon needs")
    reward, discount = reward_and_discount(mdp)
    values = [torch.zeros_like(mdp.initial)]
    for _ in range(mdp.horizon):
        action_values = reward + discount @ values[-1]
        values.append(action_values.amax(-1) if policy is None else (policy * action_values).sum(-1))
    return torch.stack(values)


def reachable_states(mdp: FiniteMDP) -> Bool[Tensor, " states"]:
    """Return a mask of the states that an episode can reach without having terminated.

    Example:
        >>> cliff = FiniteMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), gamma=1.0)
        >>> int(reachable_states(cliff).sum())  # all but the cliff and the goal
        37
    """
    return _transitive_closure(mdp.initial > 0, (mdp.transition * ~mdp.terminated).sum(1) > 0)


def start_value(mdp: FiniteMDP, values: Float[Tensor, "*dims states"]) -> Float[Tensor, "*dims"]:
    """Return the expected value of the initial state, ``Σ_s P(s_0 = s) V(s)``.

    Example:
        >>> taxi = FiniteMDP.from_gymnasium(gymnasium.make("Taxi-v4"), gamma=0.99)
        >>> round(start_value(taxi, value_iteration(taxi).amax(-1)).item(), 3)
        6.327
    """
    return values @ mdp.initial


def optimal_mean_return(env: gymnasium.Env) -> float | None:
    """Return the mean undiscounted return of the optimal policy under the time limit; None if it is unknown.

    Example:
        >>> round(optimal_mean_return(gymnasium.make("FrozenLake-v1")), 4)
        0.7442
    """
    mdp = known_dynamics(env, gamma=1.0)
    return None if mdp is None or mdp.horizon is None else float(start_value(mdp, finite_horizon(mdp)[-1]))


def _transitive_closure(
    members: Bool[Tensor, " states"], edge: Bool[Tensor, "states states"]
) -> Bool[Tensor, " states"]:
    """Return all states that are reachable from ``members``; ``edge[s, s']`` is true if a step leads from s to s'."""
    while True:
        larger = members | edge[members].any(0)
        if torch.equal(larger, members):
            return members
        members = larger
