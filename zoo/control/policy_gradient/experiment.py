from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo._constraints import COUNT, check_constraints
from zoo.control._evaluation import EpisodeEvaluator
from zoo.control._experiment import COMPLETE_EPISODES, ControlExperiment
from zoo.control.envs._registration import check_env_kwargs, import_env_module
from zoo.control.envs.factory import make_eval_vector_env, make_vector_env
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient._value_function import value_function
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.policy_gradient.policies import action_spec
from zoo.gradients import LeaveOneOutBaseline

_DEFAULT_N_STEPS = 16  # with a value function that bootstraps truncated rollouts


class PolicyGradientExperiment(ControlExperiment):
    """REINFORCE in an environment, evaluated by episodes of the frozen policy in separate environments.

    Args:
        estimator: keyword arguments of ``Reinforce``; see ``PolicyGradient``.
        n_steps: steps of each environment between two updates of the policy, or 0 for one complete episode of each.
            Defaults to 16 with a learned value function, which bootstraps truncated rollouts, and to 0 without.
        decay_steps: environment steps in which learning rates and entropy coefficient decay to 0; null for
            ``total_timesteps``.
        options: keyword arguments of ``PolicyGradient``; the other arguments are those of ``ControlExperiment``.

    Raises:
        ValueError: the environment is unknown, its action space is not supported, a number is invalid, leave-one-out
            has only one environment, ``n_steps`` truncates episodes without a value function, or training would end
            before the first evaluation.

    Example:
        >>> PolicyGradientExperiment("CartPole-v1", {"baseline": "learned"}, seed=1, n_eval_episodes=2).monitor
        'eval_return_mean'
    """

    def __init__(
        self,
        env: str,
        estimator: Mapping[str, Any],
        seed: int,
        num_envs: int = 16,
        n_steps: int | None = None,
        eval_freq: int = 4096,
        n_eval_episodes: int = 100,
        total_timesteps: int = 500_000,
        decay_steps: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        trust: bool = False,
        **options: Any,
    ):
        counts = {"num_envs": num_envs, "n_eval_episodes": n_eval_episodes}
        check_constraints(counts, dict.fromkeys(counts, COUNT))
        env, env_kwargs = import_env_module(env, trust), check_env_kwargs(env_kwargs)
        envs = VectorEnvAdapter(make_vector_env(env, num_envs, **env_kwargs))
        eval_envs = VectorEnvAdapter(make_eval_vector_env(env, 2 * n_eval_episodes, **env_kwargs))
        evaluator = EpisodeEvaluator(eval_envs, monitor="eval_return_mean")
        module = PolicyGradient(
            observation_shape=list(envs.observation_shape),
            actions=action_spec(envs.action_space),
            reward_threshold=evaluator.reward_threshold,
            seed=seed,
            estimator=estimator,
            decay_steps=total_timesteps if decay_steps is None else decay_steps,
            spaces=envs.spaces,
            **options,
        )
        if num_envs < 2 and any(isinstance(part, LeaveOneOutBaseline) for part in module.reinforce.modules()):
            baseline = module.hparams["estimator"]["baseline"]
            raise ValueError(
                f"estimator.baseline={baseline} compares parallel environments, and there is only one: set "
                "model.num_envs to 2 or more, or choose another baseline"
            )
        if value_function(module.reinforce) is None:
            if n_steps:
                raise ValueError(
                    f"n_steps={n_steps} truncates episodes, and without a learned baseline nothing bootstraps the "
                    "rewards that follow: remove n_steps, or set estimator.baseline=learned"
                )
            n_steps = COMPLETE_EPISODES
        n_steps = _DEFAULT_N_STEPS if n_steps is None else n_steps
        super().__init__(env, module, envs, evaluator, seed, n_steps, eval_freq, total_timesteps, env_kwargs)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Evaluate a checkpoint in episodes that no evaluation in training used."""
        metrics = super().evaluate(checkpoint, folder)
        if (steps := int(PolicyGradient.load(checkpoint).training_solved_after)) >= 0:
            metrics["env_steps_to_training_solved"] = float(steps)
        return metrics

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary: mean return of the policy, and when it first solved the task."""
        low, high = metrics["eval_return_low"], metrics["eval_return_high"]
        return (
            f"{self.name} after {metrics['env_steps']:,.0f} steps: mean return {metrics['eval_return_mean']:.1f} "
            f"(95 % interval {low:.1f} to {high:.1f}), {metrics['greedy_return_mean']:.1f} of the greedy policy"
            f"{self.describe_solution(metrics)}{self.describe_length()}"
        )
