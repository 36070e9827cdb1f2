from collections.abc import Mapping
from typing import Any

from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete, Space

from zoo.control.envs.dynamics import known_dynamics
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.registration import import_environment
from zoo.control.envs.spaces import UnsupportedSpaceError, count
from zoo.control.envs.vector_env import Environments, make_environments, make_evaluation_environments
from zoo.control.envs.wrappers import shortened
from zoo.control.evaluators import ExactScore, PlayedScore, Score
from zoo.control.experiment import ControlExperiment
from zoo.control.prediction import described_spaces
from zoo.control.q_learning.module import QLearning

EPISODES = 100  # of a measurement of a table whose environment does not expose its dynamics
MOST_ACTIONS = 10_000


class QLearningExperiment(ControlExperiment):
    """Q-learning, and its result in words where it is measured by episodes."""

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what the policy earns."""
        low, high = figures["greedy_return_low"], figures["greedy_return_high"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the greedy policy earns "
            f"{figures['greedy_return_mean']:.1f} an episode (95 % interval {low:.1f} to {high:.1f}), "
            f"{figures['eval_return_mean']:.1f} if it explores as at the end of training{self.solved(figures)}"
            f"{self.budget()}"
        )


class TabularQLearningExperiment(QLearningExperiment):
    """Q-learning with a table, in any environment with finitely many observations and actions.

    In one that exposes its dynamics all that is reported is exact. In others, the measurements are episodes that the
    frozen policy plays.

    Args:
        env: an id of Gymnasium's registry, or ``module:id`` with a module that registers it when it is imported.
        seed: of the environment.
        batch_size: transitions drawn from a replay buffer, if there is one.
        gamma: the discount.
        num_envs: episodes under way at once.
        train_freq: steps of each between two updates of the table.
        eval_freq: environment steps between two measurements.
        total_timesteps: after which training ends.
        env_kwargs: keyword arguments of the environment, and ``max_episode_steps``.
        trust: whether the module of ``env`` may be imported, which runs its code.
        options: of ``QLearning``.

    Raises:
        ValueError: there is no such environment, its observations or actions cannot be counted, ``gamma`` is not below
            1 where the result is exact, or nothing would be learned before the end.
    """

    def __init__(
        self,
        env: str,
        seed: int,
        batch_size: int,
        gamma: float = 0.99,
        num_envs: int = 256,
        train_freq: int = 4,
        eval_freq: int = 102_400,
        total_timesteps: int = 500_000,
        env_kwargs: Mapping[str, Any] | None = None,
        trust: bool = False,
        **options: Any,
    ):
        env, env_kwargs = import_environment(env, trust), env_kwargs or {}
        single = Environments(make_environments(env, 1, numbered=True, **env_kwargs))
        copies: Any = single.vector
        mdp = known_dynamics(copies.envs[0], gamma)
        if mdp is not None and gamma == 1:
            raise ValueError(
                "gamma must be below 1 for a table: the greedy policy of one that is being learned may never end an "
                "episode, and with gamma=1 its value is then not determined"
            )
        check_learning_starts(options.get("learning_starts", 0), eval_freq, total_timesteps)
        score: Score
        if mdp is not None:
            acting, score = Environments(MDPVectorEnv(mdp, num_envs)), ExactScore(mdp)
        else:
            acting = Environments(make_environments(env, num_envs, numbered=True, **env_kwargs))
            measuring = make_evaluation_environments(env, 2 * EPISODES, numbered=True, **env_kwargs)
            score = PlayedScore(Environments(measuring), decided_by="greedy")
        module = QLearning(
            int(copies.single_observation_space.n),
            countable_actions(single.action_space, env),
            gamma=gamma,
            batch_size=batch_size,
            reward_threshold=score.reward_threshold,
            seed=seed,
            spaces=described_spaces(single.own_observation_space, single.action_space),
            **options,
        )
        super().__init__(env, module, acting, score, seed, train_freq, eval_freq, total_timesteps, env_kwargs)

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words how near to the optimum it came, or what the policy earns."""
        if "start_value" not in figures:
            return super().describe(figures)
        gamma, optimum = self.module.hparams["gamma"], figures["start_value"] + figures["start_value_gap"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the greedy policy is worth "
            f"{figures['start_value']:.6f} at the start, and the best one {optimum:.6f} (exact, gamma {gamma:g})\n"
            f"  max |Q - Q*| = {figures['q_distance']:.4f} over the states that can be reached{self.solved(figures)}"
        )


class DeepQLearningExperiment(QLearningExperiment):
    """Q-learning with a network, measured by episodes that the frozen policy plays in environments of their own.

    Args:
        env: an id of Gymnasium's registry, or ``module:id`` with a module that registers it when it is imported.
        seed: of the environments.
        batch_size: transitions drawn from the replay buffer for each gradient step.
        num_envs: episodes under way at once.
        train_freq: steps of each between two updates of the policy.
        eval_freq: environment steps between two measurements.
        n_eval_episodes: episodes that a measurement takes, of the greedy policy and as many of the exploring one.
        total_timesteps: after which training ends.
        lr_decay_steps: environment steps in which the learning rate falls to 0; None for ``total_timesteps``.
        env_kwargs: keyword arguments of the environment, and ``max_episode_steps``.
        trust: whether the module of ``env`` may be imported, which runs its code.
        options: of ``QLearning``.

    Raises:
        ValueError: there is no such environment, its actions cannot be counted, or nothing would be learned before the
            end.
    """

    def __init__(
        self,
        env: str,
        seed: int,
        batch_size: int,
        num_envs: int = 16,
        train_freq: int = 16,
        eval_freq: int = 4096,
        n_eval_episodes: int = 100,
        total_timesteps: int = 500_000,
        lr_decay_steps: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        trust: bool = False,
        **options: Any,
    ):
        check_learning_starts(options.get("learning_starts", 0), eval_freq, total_timesteps)
        env, env_kwargs = import_environment(env, trust), env_kwargs or {}
        acting = Environments(make_environments(env, num_envs, **env_kwargs))
        actions = countable_actions(acting.action_space, env)
        measuring = Environments(make_evaluation_environments(env, 2 * n_eval_episodes, **env_kwargs))
        score = PlayedScore(measuring, decided_by="greedy")
        module = QLearning(
            list(acting.observation_shape),
            actions,
            batch_size=batch_size,
            lr_decay_steps=total_timesteps if lr_decay_steps is None else lr_decay_steps,
            reward_threshold=score.reward_threshold,
            seed=seed,
            spaces=described_spaces(acting.own_observation_space, acting.action_space),
            **options,
        )
        super().__init__(env, module, acting, score, seed, train_freq, eval_freq, total_timesteps, env_kwargs)


def countable_actions(space: Space, name: str) -> int:
    """Count the actions, or the combinations where an action is several choices.

    Raises:
        UnsupportedSpaceError: they cannot be counted, or are too many.
    """
    actions = count(space) if isinstance(space, Discrete | MultiDiscrete | MultiBinary) else None
    if actions is None or actions > MOST_ACTIONS:
        raise UnsupportedSpaceError(
            f"Q-learning needs actions that can be counted, and those of {name} are {shortened(space)}, not at most "
            f"{MOST_ACTIONS:,} choices: choose model=policy_gradient"
        )
    return actions


def check_learning_starts(learning_starts: int, eval_freq: int, total_timesteps: int) -> None:
    """Refuse a training that ends before a policy has learned anything and been measured.

    Raises:
        ValueError: it would.
    """
    if learning_starts > 0 and total_timesteps < learning_starts + eval_freq:
        raise ValueError(
            f"total_timesteps must be at least {learning_starts + eval_freq}, for nothing is learned in the first "
            f"{learning_starts} steps (learning_starts) and a measurement comes every {eval_freq} (eval_freq); "
            f"got {total_timesteps}"
        )
