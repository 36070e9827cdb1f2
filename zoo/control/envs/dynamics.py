"""Which environments tell their dynamics truly, so that exact answers about them are answers about what is played."""

from typing import Any

import gymnasium
from gymnasium.spaces import Discrete
from gymnasium.wrappers import FlattenObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit

from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.planning import finite_horizon, start_value
from zoo.control.envs.wrappers import CheckedStep, NumberedObservation

HARMLESS = (CheckedStep, FlattenObservation, NumberedObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit)
LARGEST = 50_000_000  # entries of P(s' | s, a) in a dense array


def known_dynamics(env: gymnasium.Env, gamma: float) -> FiniteMDP | None:
    """Read an environment's dynamics, if what it exposes as ``P`` is all there is to know.

    It is not where a wrapper may change rewards or states, or where the environment does more than ``P`` tells, as Taxi
    does with a fickle passenger.

    Returns:
        None if that cannot be said, or the dynamics are too large to be solved as dense arrays.

    Example:
        >>> known_dynamics(gymnasium.make("FrozenLake-v1"), gamma=0.99).states
        16
        >>> known_dynamics(gymnasium.make("CartPole-v1"), gamma=0.99) is None
        True
        >>> known_dynamics(gymnasium.make("Taxi-v4", fickle_passenger=True), gamma=0.99) is None
        True
    """
    inner: Any = env.unwrapped
    dynamics = getattr(inner, "P", None)
    space = inner.observation_space
    if dynamics is None or not hasattr(inner, "initial_state_distrib") or getattr(inner, "fickle_passenger", False):
        return None
    if not isinstance(space, Discrete) or not isinstance(inner.action_space, Discrete) or space.start:
        return None
    if int(space.n) ** 2 * int(inner.action_space.n) > LARGEST:
        return None
    layer = env
    while isinstance(layer, gymnasium.Wrapper):
        if type(layer) not in HARMLESS:
            return None
        layer = layer.env
    try:
        return FiniteMDP.from_gymnasium(env, gamma)
    except (TypeError, KeyError, IndexError):  # a P of another form than Gymnasium's
        return None


def best_mean_return(env: gymnasium.Env) -> float | None:
    """Mean return of the best policy there can be, without discount and under the time limit; None if not known.

    Example:
        >>> round(best_mean_return(gymnasium.make("FrozenLake-v1")), 4)
        0.7442
    """
    mdp = known_dynamics(env, gamma=1.0)
    return None if mdp is None or mdp.horizon is None else float(start_value(mdp, finite_horizon(mdp)[-1]))
