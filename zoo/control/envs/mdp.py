from dataclasses import dataclass
from typing import Any

import gymnasium
import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class FiniteMDP:
    """A Markov decision process with finitely many states and actions, known completely.

    Args:
        transition: ``P(s' | s, a)``.
        reward: ``r(s, a, s')``, in the environment's units.
        terminated: true where the step from ``s`` to ``s'`` by ``a`` ends the episode: nothing follows it, whatever
            is known of ``s'``.
        initial: ``P(s_0)``.
        gamma: the discount ``γ``, between 0 and 1.
        horizon: steps after which an episode is cut off (truncated, not terminated); None if it never is.

    Raises:
        ValueError: the sizes do not belong together, probabilities do not sum to 1, a reward is not finite, ``gamma``
            lies outside [0, 1], or the horizon is not positive.

    Example:
        >>> stay_or_go = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> FiniteMDP(
        ...     transition=stay_or_go,
        ...     reward=torch.ones(2, 2, 2),
        ...     terminated=torch.tensor([False, True]).expand(2, 2, 2),
        ...     initial=torch.tensor([1.0, 0.0]),
        ...     gamma=0.9,
        ... ).states
        2
    """

    transition: Float[Tensor, "states actions next_states"]
    reward: Float[Tensor, "states actions next_states"]
    terminated: Bool[Tensor, "states actions next_states"]
    initial: Float[Tensor, " states"]
    gamma: float
    horizon: int | None = None

    def __post_init__(self) -> None:
        shape = (self.states, self.actions, self.states)
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
            raise ValueError("every reward must be finite; one that cannot happen may be 0")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie between 0 and 1, got {self.gamma}")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"the horizon must be at least 1 step, or None for no limit, got {self.horizon}")

    @property
    def states(self) -> int:
        """Number of states."""
        return self.transition.shape[0]

    @property
    def actions(self) -> int:
        """Number of actions, the same in every state."""
        return self.transition.shape[1]

    @classmethod
    def from_gymnasium(
        cls, environment: gymnasium.Env[Any, Any], gamma: float, initial: Float[Tensor, " states"] | None = None
    ) -> "FiniteMDP":
        """Read the dynamics that an environment exposes as ``P``; the horizon is that of its registration.

        Wrappers that change rewards or states are not seen, nor is anything else that ``P`` does not tell (such as
        the fickle passenger of Taxi).

        Args:
            environment: one whose ``unwrapped.P[s][a]`` lists ``(probability, next state, reward, terminated)``.
            gamma: the discount, between 0 and 1.
            initial: ``P(s_0)``; None for the ``initial_state_distrib`` that the environment exposes.

        Raises:
            ValueError: the environment exposes no ``P`` or no initial distribution, or one step is said both to end
                the episode and not to.

        Example:
            >>> mdp = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)
            >>> mdp.states, mdp.actions, mdp.horizon
            (16, 4, 100)
        """
        name = "the environment" if environment.spec is None else environment.spec.id
        dynamics = getattr(environment.unwrapped, "P", None)
        if dynamics is None:
            raise ValueError(f"{name} does not expose its dynamics as P, so that nothing exact can be said of it")
        if initial is None:
            if not hasattr(environment.unwrapped, "initial_state_distrib"):
                raise ValueError(f"{name} does not expose its initial_state_distrib; give initial, P(s_0), instead")
            initial = torch.as_tensor(environment.unwrapped.initial_state_distrib, dtype=torch.float64)
        states, actions = len(dynamics), len(dynamics[0])
        transition, earned, ended = torch.zeros(3, states, actions, states, dtype=torch.float64).numpy()
        for state in range(states):
            for action in range(actions):
                for probability, following, reward, terminated in dynamics[state][action]:
                    transition[state, action, following] += probability
                    earned[state, action, following] += probability * reward
                    ended[state, action, following] += probability * terminated
        probability, earned, ended = map(torch.from_numpy, (transition, earned, ended))
        if not ((ended == 0) | torch.isclose(ended, probability)).all():
            raise ValueError(f"{name} ends some episodes, and not others, after the same state, action and next state")
        return cls(
            transition=probability,
            reward=torch.where(probability > 0, earned / probability, 0),
            terminated=ended > 0,
            initial=initial,
            gamma=gamma,
            horizon=None if environment.spec is None else environment.spec.max_episode_steps,
        )
