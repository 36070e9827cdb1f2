from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from gymnasium.spaces import Discrete
from gymnasium.wrappers import FlattenObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.control.envs._wrappers import IndexObservation, ValidateStep

# Wrappers that change neither rewards nor transitions.
_NEUTRAL_WRAPPERS = ValidateStep, FlattenObservation, IndexObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit
_MAX_TRANSITION_ENTRIES = 50_000_000


@dataclass(frozen=True)
class FiniteMDP:
    """Markov decision process with finitely many states and actions, and known dynamics.

    Args:
        transition: ``P(s' | s, a)``.
        reward: ``r(s, a, s')``, in the environment's units.
        terminated: whether the step from ``s`` to ``s'`` by ``a`` ends the episode.
        initial: ``P(s_0)``.
        gamma: discount factor ``γ``, between 0 and 1.
        horizon: number of steps after which an episode is truncated (not terminated); None if there is no limit.

    Raises:
        ValueError: the shapes do not match, probabilities do not sum to 1, a reward is not finite, ``gamma`` lies
            outside [0, 1], or the horizon is not positive.

    Example:
        >>> stay_or_go = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> FiniteMDP(
        ...     transition=stay_or_go,
        ...     reward=torch.ones(2, 2, 2),
        ...     terminated=torch.tensor([False, True]).expand(2, 2, 2),
        ...     initial=torch.tensor([1.0, 0.0]),
        ...     gamma=0.9,
        ... ).num_states
        2
    """

    transition: Float[Tensor, "states actions next_states"]
    reward: Float[Tensor, "states actions next_states"]
    terminated: Bool[Tensor, "states actions next_states"]
    initial: Float[Tensor, " states"]
    gamma: float
    horizon: int | None = None

    def __post_init__(self) -> None:
        shape = (self.num_states, self.num_actions, self.num_states)
        sizes = {name: tuple(getattr(self, name).shape) for name in ("transition", "reward", "terminated")}
        if set(sizes.values()) != {shape} or self.initial.shape != shape[:1]:
            raise ValueError(
                "transition, reward and terminated must have shape (states, actions, states), initial (states); "
                f"got {', '.join(map(str, sizes.values()))} and {tuple(self.initial.shape)}"
            )
        for name, probability in (("transition", self.transition), ("initial", self.initial)):
            total = probability.sum(-1)
            if (probability < 0).any() or not torch.allclose(total, torch.ones_like(total)):
                raise ValueError(
                    f"the probabilities in {name} must not be negative and must sum to 1 over the last axis"
                )
        if not torch.isfinite(self.reward).all():
            raise ValueError("every reward must be finite; set the reward of an impossible transition to 0")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie between 0 and 1, got {self.gamma}")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"the horizon must be at least 1 step, or None for no limit, got {self.horizon}")

    @property
    def num_states(self) -> int:
        """Number of states."""
        return self.transition.shape[0]

    @property
    def num_actions(self) -> int:
        """Number of actions, the same in every state."""
        return self.transition.shape[1]

    @classmethod
    def from_gymnasium(
        cls, env: gymnasium.Env[Any, Any], gamma: float, initial: Float[Tensor, " states"] | None = None
    ) -> "FiniteMDP":
        """Return the MDP of an environment that lists its dynamics in ``unwrapped.P[s][a]``, with its time limit.

        Wrappers are ignored, even if they change rewards or states; see ``known_dynamics``. ``initial`` defaults to
        the environment's ``initial_state_distrib``.

        Raises:
            ValueError: the environment exposes no ``P`` or no initial distribution, or ``P`` lists a transition both
                as terminating and as not terminating.

        Example:
            >>> mdp = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
            >>> mdp.num_states, mdp.num_actions, mdp.horizon
            (16, 4, 100)
        """
        name = "the environment" if env.spec is None else env.spec.id
        dynamics = getattr(env.unwrapped, "P", None)
        if dynamics is None:
            raise ValueError(f"{name} does not expose its dynamics as P, which an exact solution needs")
        if initial is None:
            if not hasattr(env.unwrapped, "initial_state_distrib"):
                raise ValueError(f"{name} does not expose its initial_state_distrib; pass initial, P(s_0), instead")
            initial = torch.as_tensor(env.unwrapped.initial_state_distrib, dtype=torch.float64)
        states, actions = len(dynamics), len(dynamics[0])
        transition, weighted_reward, termination = torch.zeros(3, states, actions, states, dtype=torch.float64).numpy()
        for state in range(states):
            for action in range(actions):
                for probability, next_state, reward, terminated in dynamics[state][action]:
                    transition[state, action, next_state] += probability
                    weighted_reward[state, action, next_state] += probability * reward
                    termination[state, action, next_state] += probability * terminated
        probability, weighted_reward, termination = map(torch.from_numpy, (transition, weighted_reward, termination))
        if not ((termination == 0) | torch.isclose(termination, probability)).all():
            raise ValueError(f"{name} terminates after some, but not all, occurrences of the same transition")
        return cls(
            transition=probability,
            reward=torch.where(probability > 0, weighted_reward / probability, 0),
            terminated=termination > 0,
            initial=initial,
            gamma=gamma,
            horizon=None if env.spec is None else env.spec.max_episode_steps,
        )


def known_dynamics(env: gymnasium.Env, gamma: float) -> FiniteMDP | None:
    """Return the MDP of an environment if its ``P`` is complete and small enough for dense arrays, otherwise None.

    ``P`` is incomplete if a wrapper may change rewards or states, or for Taxi with a fickle passenger.

    Example:
        >>> known_dynamics(gymnasium.make("FrozenLake-v1"), gamma=0.99).num_states
        16
        >>> known_dynamics(gymnasium.make("CartPole-v1"), gamma=0.99) is None
        True
        >>> known_dynamics(gymnasium.make("Taxi-v4", fickle_passenger=True), gamma=0.99) is None
        True
    """
    inner: Any = env.unwrapped
    space = inner.observation_space
    exposed = getattr(inner, "P", None) is not None and hasattr(inner, "initial_state_distrib")
    if not exposed or getattr(inner, "fickle_passenger", False):
        return None
    if not isinstance(space, Discrete) or not isinstance(inner.action_space, Discrete) or space.start:
        return None
    if int(space.n) ** 2 * int(inner.action_space.n) > _MAX_TRANSITION_ENTRIES:
        return None
    wrapper = env
    while isinstance(wrapper, gymnasium.Wrapper):
        if type(wrapper) not in _NEUTRAL_WRAPPERS:
            return None
        wrapper = wrapper.env
    try:
        return FiniteMDP.from_gymnasium(env, gamma)
    except (TypeError, KeyError, IndexError):  # a P of another form than Gymnasium's
        return None
