from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo.constraints import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, check_constraints, optional
from zoo.control.callbacks import validate
from zoo.control.epoch_means import PassMeans
from zoo.control.evaluators import Score
from zoo.control.networks import Standardize, network
from zoo.control.policy_gradient.objective import (
    PolicyGradientObjective,
    StateValue,
    learned_value,
    policy_gradient_objective,
)
from zoo.control.policy_gradient.policies import Bounds, make_policy
from zoo.control.prediction import Predictor
from zoo.control.rollout import Batch, Rollout
from zoo.gradients import Reinforce, RunningScale, named_baseline
from zoo.training import LoadableModule, sum_losses

CONSTRAINTS = {
    "gamma": FRACTION,
    "gae_lambda": FRACTION,
    "ent_coef": NOT_NEGATIVE,
    "lr": POSITIVE,
    "value_lr": POSITIVE,
    "value_updates": COUNT,
    "decay_steps": optional(COUNT),
    "max_grad_norm": optional(POSITIVE),
}


class Fit(NamedTuple):
    """What the value function is still to learn from a rollout."""

    rollout: Rollout
    returns: Tensor
    """``(time, envs)``."""


class PolicyGradient(Predictor, LoadableModule):
    """REINFORCE for control: one update of the policy a rollout, several of the value function.

    ``∇J = E[Σ_t ∇ log π(a_t | s_t) (G_t - b(s_t))]``: Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", 1992. The baseline is any of ``zoo.gradients``.

    The defaults are biased, for the sake of less noise: ``gae_lambda < 1`` and the value that stands for what follows
    a cut trust what was learned, and normalised advantages depend on the batch. See ``policy_gradient_objective`` for
    what is exact.

    Args:
        observation_shape: of one observation.
        actions: the number of choices, that of each of several choices, or the bounds of each coordinate.
        reward_threshold: mean return from which on the task counts as solved; None if it never does.
        seed: of the evaluations.
        gamma: ``γ``.
        gae_lambda: ``λ``; see ``lambda_return``. 1 where no value is learned.
        normalize_advantage: divide the advantages of each rollout by their root mean square, after subtracting their
            mean if a value function is learned.
        discount_weighting: weigh step ``t`` of an episode by ``γᵗ``.
        ent_coef: weight of the policy's entropy, which is made larger; it falls as the learning rates do.
        hidden: units of the hidden layers, of policy and value function.
        lr: learning rate of the policy (Adam).
        value_lr: learning rate of the value function.
        value_updates: updates of the value function a rollout.
        decay_steps: environment steps in which learning rates and entropy's weight fall to 0, linearly; None to keep
            them.
        max_grad_norm: the mean gradient of a time step is clipped to this norm; None to leave it.
        stop_on_reward_threshold: stop training at the first evaluation that solves the task.
        estimator: ``baseline`` (see ``named_baseline``), ``decay`` of a moving average, and ``scale``, whether signals
            are divided by a running scale; it needs ``normalize_advantage=False``, which divides them too, and
            ``ent_coef=0``, as it would divide one part of the policy's loss and not the other.
        spaces: of the environment, for ``predict``; see ``described_spaces``. None where observations and actions are
            those of the policy.

    Raises:
        ValueError: an option has no such value.

    Example:
        >>> model = PolicyGradient(observation_shape=[4], actions=2)
        >>> model.policy.act(torch.zeros(3, 4), model.policy.noise(3)).shape
        torch.Size([3])
    """

    env_steps: Tensor
    solved_after: Tensor
    training_solved_after: Tensor

    def __init__(
        self,
        observation_shape: Sequence[int],
        actions: int | list[int] | Bounds,
        reward_threshold: float | None = None,
        seed: int = 0,
        gamma: float = 0.98,
        gae_lambda: float = 0.9,
        normalize_advantage: bool = True,
        discount_weighting: bool = False,
        ent_coef: float = 0.01,
        hidden: list[int] = [64],  # noqa: B006
        lr: float = 1.2e-2,
        value_lr: float = 1.2e-2,
        value_updates: int = 10,
        decay_steps: int | None = None,
        max_grad_norm: float | None = 0.5,
        stop_on_reward_threshold: bool = True,
        estimator: Mapping[str, Any] | None = None,
        spaces: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        estimator = {"baseline": "learned", **(estimator or {})}
        self.save_hyperparameters()
        check_constraints(self.hparams, CONSTRAINTS)
        if estimator.get("scale") and (normalize_advantage or ent_coef):
            raise ValueError(
                "estimator.scale divides the policy's loss by a running scale, which model.normalize_advantage would "
                "undo and model.ent_coef would be weighed against: leave estimator.scale away, or set "
                "model.normalize_advantage=false model.ent_coef=0"
            )
        self.policy = make_policy(observation_shape, actions, hidden)
        baseline = named_baseline(
            estimator["baseline"],
            net=lambda: network(observation_shape, 1, hidden),
            sample_dim=1,
            decay=estimator.get("decay", 0.9),
        )
        self.reinforce = Reinforce(baseline, RunningScale() if estimator.get("scale") else None, maximize=True)
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("solved_after", torch.tensor(-1))
        self.register_buffer("training_solved_after", torch.tensor(-1))
        self.fit: Fit | None = None
        self.progress = PassMeans()

    def on_fit_start(self) -> None:
        """Refuse a bound that nothing would keep to.

        Raises:
            ValueError: the trainer is to clip gradients.
        """
        if self.trainer.gradient_clip_val is not None:
            raise ValueError(
                f"gradient_clip={self.trainer.gradient_clip_val} has no effect on a policy gradient, which clips "
                "policy and value function each by itself: leave it away, and set model.max_grad_norm"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a rollout, which is used for this one update of the policy.

        Raises:
            ValueError: the rollout is not newer than the one before.
        """
        if batch.env_steps <= self.env_steps:
            raise ValueError(
                f"the rollout that ends at environment step {batch.env_steps} was taken before the last update, at "
                f"{int(self.env_steps)}: its actions are another policy's, and each rollout serves for one update"
            )
        self.env_steps.fill_(batch.env_steps)
        objective = policy_gradient_objective(
            self.policy,
            batch.rollout,
            self.reinforce,
            self.hparams["gamma"],
            self.hparams["gae_lambda"],
            self.hparams["normalize_advantage"],
            self.hparams["discount_weighting"],
        )
        self.fit = Fit(batch.rollout, objective.returns)
        self.note_episode_return(batch)
        self.log_progress(objective, batch)
        terms = {"policy": objective.policy, "value": objective.value}
        if self.hparams["ent_coef"]:
            terms["entropy"] = -self.hparams["ent_coef"] * self.left() * objective.entropy
        return sum_losses(terms, step=self.global_step)

    def left(self) -> float:
        """Fraction of the learning rates and the entropy's weight that is left."""
        if (steps := self.hparams["decay_steps"]) is None:
            return 1.0
        return max(0.0, 1 - int(self.env_steps) / steps)

    def note_episode_return(self, batch: Batch) -> None:
        """Note when the last hundred episodes of training first reached on average what solves the task."""
        threshold, reached = self.hparams["reward_threshold"], batch.episode_return
        if threshold is not None and reached is not None and reached >= threshold and self.training_solved_after < 0:
            self.training_solved_after.fill_(batch.env_steps)

    @torch.no_grad()
    def log_progress(self, objective: PolicyGradientObjective, batch: Batch) -> None:
        """Note how the value function fits, how much the policy explores, and the returns while learning."""
        valid = batch.rollout.valid
        returns = objective.returns[valid]
        advantage = returns - objective.estimate.baseline[valid]
        variance = advantage.var(correction=0)
        metrics = {
            "value_loss": objective.value,
            "entropy": objective.entropy * valid.shape[1] / valid.sum(),
            "advantage_std": variance.sqrt(),
            "explained_variance": 1 - variance / returns.var(correction=0).clamp(min=1e-6),
        }
        self.progress.add(metrics, {} if batch.episode_return is None else {"episode_return": batch.episode_return})

    def on_train_epoch_end(self) -> None:
        """Log the means over the pass, and the training return at its end."""
        self.log_dict(self.progress.take())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was noted of the present pass."""
        checkpoint["progress"] = self.progress.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with what was noted."""
        self.progress.load_state_dict(checkpoint["progress"])

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradients of policy and value function, each by itself.

        The policy's loss is summed over time, and so is its bound.
        """
        if (norm := self.hparams["max_grad_norm"]) is not None and self.fit is not None:
            bounds = (norm * len(self.fit.returns), norm)
            for group, bound in zip(optimizer.param_groups, bounds, strict=False):  # there may be no value function
                nn.utils.clip_grad_norm_(group["params"], bound)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Update both, the value function as often as it may, and last what the next rollout is standardised by."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.fit is None:
            return
        rollout, returns = self.fit
        observation, returns = rollout.observation[rollout.valid], returns[rollout.valid]
        if (value := learned_value(self.reinforce)) is not None:
            self.fit_value(value, observation, returns, self.optimizers(use_pl_optimizer=False))
        for part in self.modules():
            if isinstance(part, Standardize):
                part.update(observation)
        self.fit = None

    def fit_value(self, value: StateValue, observation: Tensor, returns: Tensor, optimizer: Any) -> None:
        """Go on with the least squares of the value function, against the same returns."""
        parameters, norm, step = list(value.parameters()), self.hparams["max_grad_norm"], self.global_step
        for _ in range(self.hparams["value_updates"] - 1):
            optimizer.zero_grad()  # of the policy too, which is then left as it is
            sum_losses({"value": nn.functional.mse_loss(value(observation), returns)}, step).backward()
            if norm is not None:
                nn.utils.clip_grad_norm_(parameters, norm)
            optimizer.step()
        optimizer.zero_grad()

    def validation_step(self, score: Score, batch_idx: int) -> None:
        """Measure the frozen policy, and stop if the task is solved."""
        validate(self, score)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam for policy and value function, whose rates follow the environment steps."""
        groups = [{"params": list(self.policy.parameters()), "lr": self.hparams["lr"]}]
        if learned := list(self.reinforce.parameters()):
            groups.append({"params": learned, "lr": self.hparams["value_lr"]})
        optimizer = torch.optim.Adam(groups, eps=1e-5, fused=True)  # gradients of rare rewards may be far smaller
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: self.left())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
