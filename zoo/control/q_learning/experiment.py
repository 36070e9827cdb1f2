from collections.abc import Mapping
from typing import Any

from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete, Space

from zoo._constraints import NOT_NEGATIVE, check_constraints
from zoo.control._evaluation import EpisodeEvaluator, ExactEvaluator, PolicyEvaluator
from zoo.control._experiment import ControlExperiment
from zoo.control.envs._registration import check_env_kwargs, import_env_module
from zoo.control.envs._spaces import UnsupportedSpaceError, num_elements
from zoo.control.envs._wrappers import shorten_space
from zoo.control.envs.factory import make_eval_vector_env, make_vector_env
from zoo.control.envs.mdp import known_dynamics
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.q_learning.module import QLearning

_N_EVAL_EPISODES = 100  # of a table whose environment does not expose its dynamics
_MAX_ACTIONS = 10_000


class _QLearningExperiment(ControlExperiment):
    """Base class for experiments with Q-learning."""

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary: mean return of the greedy and the exploring policy."""
        low, high = metrics["greedy_return_low"], metrics["greedy_return_high"]
        return (
            f"{self.name} after {metrics['env_steps']:,.0f} steps: mean return {metrics['greedy_return_mean']:.1f} of "
            f"the greedy policy (95 % interval {low:.1f} to {high:.1f}), {metrics['eval_return_mean']:.1f} with the "
            f"exploration at the end of training{self.describe_solution(metrics)}{self.describe_length()}"
        )


class TabularQLearningExperiment(_QLearningExperiment):
    """Q-learning with a table, in any environment with finitely many observations and actions.

    Evaluation is exact if the environment exposes its dynamics, and by episodes of the frozen policy otherwise.

    Args:
        batch_size: number of transitions per gradient step from a replay buffer.
        train_freq: steps of each environment between two updates of the table.
        options: keyword arguments of ``QLearning``; the other arguments are those of ``ControlExperiment``.

    Raises:
        ValueError: the environment is unknown, its observation or action space is not finite, ``gamma`` is 1 where the
            evaluation is exact, or training would end before anything is learned.

    Example:
        >>> TabularQLearningExperiment("FrozenLake-v1", seed=1, batch_size=64).monitor
        'start_value'
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
        env, env_kwargs = import_env_module(env, trust), check_env_kwargs(env_kwargs)
        single = VectorEnvAdapter(make_vector_env(env, 1, tabular=True, **env_kwargs))
        vector_env: Any = single.vector_env
        mdp = known_dynamics(vector_env.envs[0], gamma)
        if mdp is not None and gamma == 1:
            raise ValueError(
                "gamma must be below 1 for a table: the greedy policy may never end an episode while it is learned, "
                "and with gamma=1 its value is then not determined"
            )
        check_constraints({"train_freq": train_freq}, {"train_freq": NOT_NEGATIVE})
        _check_learning_starts(options.get("learning_starts", 0), eval_freq, total_timesteps)
        evaluator: PolicyEvaluator
        if mdp is not None:
            envs, evaluator = VectorEnvAdapter(MDPVectorEnv(mdp, num_envs)), ExactEvaluator(mdp)
        else:
            envs = VectorEnvAdapter(make_vector_env(env, num_envs, tabular=True, **env_kwargs))
            eval_env = make_eval_vector_env(env, 2 * _N_EVAL_EPISODES, tabular=True, **env_kwargs)
            evaluator = EpisodeEvaluator(VectorEnvAdapter(eval_env), monitor="greedy_return_mean")
        module = QLearning(
            int(vector_env.single_observation_space.n),
            _count_actions(single.action_space, env),
            gamma=gamma,
            batch_size=batch_size,
            reward_threshold=evaluator.reward_threshold,
            seed=seed,
            spaces=single.spaces,
            **options,
        )
        super().__init__(env, module, envs, evaluator, seed, train_freq, eval_freq, total_timesteps, env_kwargs)

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary: value of the greedy policy and the optimum, or its mean return."""
        if "start_value" not in metrics:
            return super().describe(metrics)
        gamma, optimum = self.module.hparams["gamma"], metrics["start_value"] + metrics["start_value_gap"]
        return (
            f"{self.name} after {metrics['env_steps']:,.0f} steps: value {metrics['start_value']:.6f} of the greedy "
            f"policy at the start, optimum {optimum:.6f} (exact, gamma {gamma:g})\n"
            f"  max |Q - Q*| = {metrics['q_distance']:.4f} over reachable states{self.describe_solution(metrics)}"
        )


class DeepQLearningExperiment(_QLearningExperiment):
    """Q-learning with a network, evaluated by episodes of the frozen policy in separate environments.

    Args:
        batch_size: number of transitions per gradient step.
        train_freq: steps of each environment between two updates of the policy.
        lr_decay_steps: environment steps in which the learning rate decays to 0; null for ``total_timesteps``.
        options: keyword arguments of ``QLearning``; the other arguments are those of ``ControlExperiment``.

    Raises:
        ValueError: the environment is unknown, its action space is not finite, or training would end before anything is
            learned.

    Example:
        >>> DeepQLearningExperiment("CartPole-v1", seed=1, batch_size=64, n_eval_episodes=2).monitor
        'greedy_return_mean'
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
        check_constraints({"train_freq": train_freq}, {"train_freq": NOT_NEGATIVE})
        _check_learning_starts(options.get("learning_starts", 0), eval_freq, total_timesteps)
        env, env_kwargs = import_env_module(env, trust), check_env_kwargs(env_kwargs)
        envs = VectorEnvAdapter(make_vector_env(env, num_envs, **env_kwargs))
        num_actions = _count_actions(envs.action_space, env)
        eval_envs = VectorEnvAdapter(make_eval_vector_env(env, 2 * n_eval_episodes, **env_kwargs))
        evaluator = EpisodeEvaluator(eval_envs, monitor="greedy_return_mean")
        module = QLearning(
            list(envs.observation_shape),
            num_actions,
            batch_size=batch_size,
            lr_decay_steps=total_timesteps if lr_decay_steps is None else lr_decay_steps,
            reward_threshold=evaluator.reward_threshold,
            seed=seed,
            spaces=envs.spaces,
            **options,
        )
        super().__init__(env, module, envs, evaluator, seed, train_freq, eval_freq, total_timesteps, env_kwargs)


def _count_actions(space: Space, env_id: str) -> int:
    """Return the number of actions, or of combinations of several discrete factors."""
    num_actions = num_elements(space) if isinstance(space, Discrete | MultiDiscrete | MultiBinary) else None
    if num_actions is None or num_actions > _MAX_ACTIONS:
        raise UnsupportedSpaceError(
            f"Q-learning needs a discrete action space of at most {_MAX_ACTIONS:,} actions, and that of {env_id} is "
            f"{shorten_space(space)}: choose model=policy_gradient"
        )
    return num_actions


def _check_learning_starts(learning_starts: int, eval_freq: int, total_timesteps: int) -> None:
    """Check that training includes an evaluation after learning has started."""
    if learning_starts > 0 and total_timesteps < learning_starts + eval_freq:
        raise ValueError(
            f"total_timesteps must be at least {learning_starts + eval_freq}, as nothing is learned in the first "
            f"{learning_starts} steps (learning_starts) and evaluations are {eval_freq} steps apart (eval_freq); "
            f"got {total_timesteps}"
        )
