from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.constraints import COUNT, check_constraints
from zoo.control.envs.registration import import_environment
from zoo.control.envs.vector_env import Environments, make_environments, make_evaluation_environments
from zoo.control.evaluators import PlayedScore
from zoo.control.experiment import WHOLE_EPISODES, ControlExperiment
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.policy_gradient.objective import learned_value
from zoo.control.policy_gradient.policies import action_kind
from zoo.control.prediction import described_spaces
from zoo.gradients import LeaveOneOut

CUT_AFTER = 16  # steps of a rollout, where a value function stands for what follows


class PolicyGradientExperiment(ControlExperiment):
    """REINFORCE in an environment, measured by episodes that the frozen policy plays in environments of their own.

    Args:
        env: an id of Gymnasium's registry, or ``module:id`` with a module that registers it when it is imported.
        estimator: options of ``Reinforce``; see ``PolicyGradient``.
        seed: of environments and evaluations.
        num_envs: how many act at once.
        n_steps: steps of each between two updates of the policy, or 0 for one whole episode of each. Unless
            given: 16 where a value function is learned, which stands for what follows a cut, else whole episodes.
        eval_freq: environment steps between two evaluations; see ``ControlExperiment``.
        n_eval_episodes: episodes that an evaluation takes, sampled and as many greedy ones.
        total_timesteps: after which training ends.
        decay_steps: environment steps in which learning rates and entropy's weight fall to 0; None for
            ``total_timesteps``.
        env_kwargs: keyword arguments of the environment, and ``max_episode_steps``.
        trust: whether the module of ``env`` may be imported, which runs its code.
        options: of ``PolicyGradient``.

    Raises:
        ValueError: there is no such environment, no policy fits its actions, a number makes no sense, leave-one-out has
            no other environment, episodes are to be cut where nothing stands for what follows, or there are fewer
            steps than an evaluation comes after.
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
        env, env_kwargs = import_environment(env, trust), env_kwargs or {}
        acting = Environments(make_environments(env, num_envs, **env_kwargs))
        measuring = Environments(make_evaluation_environments(env, 2 * n_eval_episodes, **env_kwargs))
        score = PlayedScore(measuring, decided_by="eval")
        module = PolicyGradient(
            observation_shape=list(acting.observation_shape),
            actions=action_kind(acting.action_space),
            reward_threshold=score.reward_threshold,
            seed=seed,
            estimator=estimator,
            decay_steps=total_timesteps if decay_steps is None else decay_steps,
            spaces=described_spaces(acting.own_observation_space, acting.action_space),
            **options,
        )
        if num_envs < 2 and any(isinstance(part, LeaveOneOut) for part in module.reinforce.modules()):
            raise ValueError(
                f"{estimator['baseline']} compares environments that act at once, and there is one: set "
                "model.num_envs to 2 or more, or choose another estimator"
            )
        if learned_value(module.reinforce) is None:
            if n_steps:
                raise ValueError(
                    f"n_steps={n_steps} cuts episodes, and without a learned baseline nothing stands for "
                    "the rewards that follow: leave n_steps away, or set estimator=learned"
                )
            n_steps = WHOLE_EPISODES
        n_steps = CUT_AFTER if n_steps is None else n_steps
        super().__init__(env, module, acting, score, seed, n_steps, eval_freq, total_timesteps, env_kwargs)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure a checkpoint, in episodes that no evaluation saw."""
        figures = super().evaluate(checkpoint, folder)
        if (after := int(PolicyGradient.load(checkpoint).training_solved_after)) >= 0:
            figures["env_steps_to_training_solved"] = float(after)
        return figures

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what the policy earns, and when it first solved the task."""
        low, high = figures["eval_return_low"], figures["eval_return_high"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the policy earns {figures['eval_return_mean']:.1f} "
            f"an episode (95 % interval {low:.1f} to {high:.1f}), {figures['greedy_return_mean']:.1f} if greedy"
            f"{self.solved(figures)}{self.budget()}"
        )
