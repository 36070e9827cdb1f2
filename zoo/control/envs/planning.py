"""Exact answers about finite Markov decision processes: Bellman, "Dynamic programming", 1957."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.control.envs.mdp import FiniteMDP


def expected_reward(mdp: FiniteMDP) -> Float[Tensor, "states actions"]:
    """Mean reward of the next step: ``r(s, a) = Σ_s' P(s' | s, a) r(s, a, s')``."""
    return (mdp.transition * mdp.reward).sum(-1)


def continuation(mdp: FiniteMDP) -> Float[Tensor, "states actions next_states"]:
    """Discounted probability that the episode goes on in ``s'``: ``γ P(s' | s, a)``, and 0 where it terminates."""
    return mdp.gamma * mdp.transition * ~mdp.terminated


def backup(mdp: FiniteMDP, values: Float[Tensor, " states"]) -> Float[Tensor, "states actions"]:
    """Value of an action if what follows is worth ``values``: ``Σ_s' P(s' | s, a) (r + γ V(s'))``.

    A step that terminates is followed by nothing. Bellman, "Dynamic programming", 1957.
    """
    return expected_reward(mdp) + continuation(mdp) @ values


def bellman_residual(mdp: FiniteMDP, action_values: Float[Tensor, "states actions"]) -> float:
    """How far action values are from optimal: ``max |T* Q - Q|``, in units of reward.

    ``max |Q - Q*|`` is at most the residual divided by ``1 - γ``.
    """
    return float((backup(mdp, action_values.amax(-1)) - action_values).abs().max())


def value_iteration(
    mdp: FiniteMDP, tolerance: float = 1e-12, max_sweeps: int = 1_000_000
) -> Float[Tensor, "states actions"]:
    """Optimal action values of endless episodes: ``Q ← Σ_s' P(s' | s, a) (r + γ max_a' Q(s', a'))`` until it rests.

    The horizon plays no part; see ``finite_horizon`` for that. With ``γ = 1`` the sweeps begin at 0 and rest only where
    no policy can collect rewards for ever.

    Args:
        mdp: the process.
        tolerance: largest change in a sweep, relative to the largest value (or to 1), at which it rests.
        max_sweeps: after which it is given up.

    Raises:
        ValueError: it did not come to rest.

    Example:
        >>> import gymnasium
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
        >>> round(value_iteration(lake)[0].max().item(), 6)
        0.542026
    """
    reward, goes_on = expected_reward(mdp), continuation(mdp)
    action_values = torch.zeros_like(reward)
    for _ in range(max_sweeps):
        before, action_values = action_values, reward + goes_on @ action_values.amax(-1)
        if (action_values - before).abs().max() <= tolerance * action_values.abs().max().clamp(min=1):
            return action_values
    raise ValueError(f"value iteration did not come to rest in {max_sweeps} sweeps with gamma {mdp.gamma}")


def greedy_policy(
    action_values: Float[Tensor, "*states actions"], tolerance: float = 1e-9
) -> Float[Tensor, "*states actions"]:
    """Policy that draws one of the best actions, all with the same probability.

    Ties are drawn, not given to the first: where several actions seem equally good (``γ = 1``) always the same one may
    walk in a circle.

    Args:
        action_values: ``Q(s, a)``.
        tolerance: actions whose values differ by less are equally good.

    Example:
        >>> greedy_policy(torch.tensor([[1.0, 3.0, 3.0]]))
        tensor([[0.0000, 0.5000, 0.5000]])
    """
    best = (action_values >= action_values.amax(-1, keepdim=True) - tolerance).to(action_values.dtype)
    return best / best.sum(-1, keepdim=True)


def policy_evaluation(mdp: FiniteMDP, policy: Float[Tensor, "states actions"]) -> Float[Tensor, " states"]:
    """Value of each state under a policy, exactly, in endless episodes: solves ``V = r_π + γ P_π V``.

    Args:
        mdp: the process; its horizon plays no part.
        policy: ``π(a | s)``.

    Raises:
        ValueError: ``γ = 1`` and from some state the policy never ends the episode, so that the equations do not
            determine its value; choose ``γ < 1`` or ``finite_horizon``.
    """
    reward = (policy * expected_reward(mdp)).sum(-1)
    goes_on = torch.einsum("sa, sat -> st", policy, continuation(mdp))
    ends = goes_on.sum(-1) < 1 - 1e-9
    if not closure(ends, goes_on.T > 0).all():
        raise ValueError(
            "with gamma 1 the values are not determined: from some state the policy never ends the episode; "
            "choose a smaller gamma, or ask for the values under a horizon"
        )
    return torch.linalg.solve(torch.eye(mdp.states, dtype=reward.dtype, device=reward.device) - goes_on, reward)


def finite_horizon(
    mdp: FiniteMDP, policy: Float[Tensor, "states actions"] | None = None
) -> Float[Tensor, "steps_left states"]:
    """Value of each state with ``0, 1, …, horizon`` steps left; nothing is earned after the last.

    ``V_0 = 0``, ``V_{k+1}(s) = max_a Σ_s' P(s' | s, a) (r + γ V_k(s'))``, or the mean over the actions of a policy.
    What an episode earns under a time limit, if ``γ = 1``: the best that a policy that knows the time can do, or
    what one that does not does.

    Args:
        mdp: the process.
        policy: ``π(a | s)``; None for the best action at each time.

    Raises:
        ValueError: the process has no horizon.

    Example:
        >>> import gymnasium
        >>> lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=1.0)
        >>> round(finite_horizon(lake)[-1, 0].item(), 6)
        0.74419
    """
    if mdp.horizon is None:
        raise ValueError("the process has no horizon, which finite_horizon needs")
    reward, goes_on = expected_reward(mdp), continuation(mdp)
    values = [torch.zeros_like(mdp.initial)]
    for _ in range(mdp.horizon):
        action_values = reward + goes_on @ values[-1]
        values.append(action_values.amax(-1) if policy is None else (policy * action_values).sum(-1))
    return torch.stack(values)


def reachable(mdp: FiniteMDP) -> Bool[Tensor, " states"]:
    """States in which an action can be asked for: those that an episode can reach without being over there."""
    return closure(mdp.initial > 0, (mdp.transition * ~mdp.terminated).sum(1) > 0)


def closure(members: Bool[Tensor, " states"], step: Bool[Tensor, "states states"]) -> Bool[Tensor, " states"]:
    """Add to a set all states that some steps lead to; ``step[s, s']`` is true where one leads from ``s`` to ``s'``."""
    while True:
        more = members | step[members].any(0)
        if torch.equal(more, members):
            return members
        members = more


def start_value(mdp: FiniteMDP, values: Float[Tensor, "*dims states"]) -> Float[Tensor, "*dims"]:
    """Mean value of the state in which an episode begins."""
    return values @ mdp.initial
