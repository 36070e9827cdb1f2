from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo._constraints import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, check_constraints, optional
from zoo.control._module import ControlModule
from zoo.control._networks import RunningNorm, make_network
from zoo.control.policy_gradient._value_function import ValueFunction, value_function
from zoo.control.policy_gradient.objective import PolicyGradientObjective, policy_gradient_objective
from zoo.control.policy_gradient.policies import Bounds, make_policy
from zoo.control.rollout import Rollout
from zoo.control.rollout_dataset import RolloutBatch
from zoo.control.schedules import Schedule
from zoo.gradients import Reinforce, RunningStd, make_baseline
from zoo.gradients.estimators import complete_options
from zoo.training import sum_losses

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


class PolicyGradient(ControlModule):
    """REINFORCE for control: one update of the policy per rollout, several of the value function.

    ``∇J = E[Σ_t ∇ log π(a_t | s_t) (G_t - b(s_t))]``: Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", 1992. The baseline is any of ``zoo.gradients``.

    The defaults accept bias for less variance; see ``policy_gradient_objective`` for options with an exact gradient.

    Args:
        observation_shape: shape of one observation.
        actions: number of actions (Discrete), list of the number of values of each factor (MultiDiscrete), or list of
            the bounds of each coordinate (Box); see ``action_spec``.
        reward_threshold: mean return at which the task counts as solved; None if there is none.
        seed: seed of the evaluations.
        gamma: discount factor ``γ``.
        gae_lambda: ``λ`` of the λ-return; see ``lambda_returns``. Without a learned value, 1 is used instead.
        normalize_advantage: divide the advantages of each rollout by their root mean square, after subtracting their
            mean if a value is learned.
        discount_weighting: weight step ``t`` of an episode by ``γᵗ``.
        ent_coef: coefficient of the entropy bonus; it decays as the learning rates do.
        hidden: sizes of the hidden layers, of policy and value function.
        lr: learning rate of the policy (Adam).
        value_lr: learning rate of the value function.
        value_updates: updates of the value function per rollout.
        decay_steps: environment steps in which learning rates and entropy coefficient decay linearly to 0; None for no
            decay.
        max_grad_norm: maximum norm of the value function's gradient, and of the policy's divided by the number of time
            steps; None for no clipping.
        stop_on_reward_threshold: stop training at the first evaluation that solves the task.
        estimator: ``baseline`` (see ``make_baseline``), ``decay`` of a moving average, and ``scale``, whether signals
            are divided by a running standard deviation; requires ``normalize_advantage=False`` and ``ent_coef=0``.
        spaces: ``VectorEnvAdapter.spaces``, for conversions in ``predict``; None if none are needed.

    Raises:
        ValueError: an option has an invalid value.

    Example:
        >>> model = PolicyGradient(observation_shape=[4], actions=2)
        >>> model.policy.act(torch.zeros(3, 4), model.policy.noise(3)).shape
        torch.Size([3])
    """

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
        self.automatic_optimization = False
        estimator = complete_options(estimator, "policy_gradient", provides=["signals"], default_baseline="learned")
        self.save_hyperparameters()
        check_constraints(self.hparams, CONSTRAINTS)
        if estimator["scale"] and (normalize_advantage or ent_coef):
            raise ValueError(
                "estimator.scale divides the policy loss by a running standard deviation: model.normalize_advantage "
                "would undo this, and the entropy bonus would not be divided; remove estimator.scale, or set "
                "model.normalize_advantage=false model.ent_coef=0"
            )
        self.policy = make_policy(observation_shape, actions, hidden)
        baseline = make_baseline(
            estimator["baseline"],
            make_net=lambda: make_network(observation_shape, 1, hidden),
            sample_dim=1,
            decay=estimator["decay"],
        )
        self.reinforce = Reinforce(
            baseline, RunningStd(estimator["decay"]) if estimator["scale"] else None, maximize=True
        )
        self.register_buffer("training_solved_after", torch.tensor(-1))

    def configure_callbacks(self) -> Any:
        """Refuse gradient clipping by the trainer, which would have no effect, before Lightning does.

        Raises:
            ValueError: the trainer clips gradients.
        """
        if self.trainer.gradient_clip_val is not None:
            raise ValueError(
                f"gradient_clip={self.trainer.gradient_clip_val} has no effect on a policy gradient, which clips "
                "policy and value function separately: remove it, and set model.max_grad_norm"
            )
        return super().configure_callbacks()

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Update the policy once, the value function several times, and the observation statistics last."""
        loss, returns = self.loss(batch)
        with torch.autocast(self.device.type, enabled=False):  # autocast is meant for the forward pass only
            self._update(loss, batch.rollout, returns)

    def loss(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """Return the loss of a rollout, and the λ-returns; set ``env_steps``, and log the rollout's metrics.

        Raises:
            ValueError: the rollout was collected before the last update.
        """
        if batch.env_steps <= self.env_steps:
            raise ValueError(
                f"the rollout that ends at environment step {batch.env_steps} was collected before the last update, at "
                f"{int(self.env_steps)}: its actions come from an older policy, and each rollout serves for one update"
            )
        self.env_steps.fill_(batch.env_steps)
        options = ("gamma", "gae_lambda", "normalize_advantage", "discount_weighting")
        objective = policy_gradient_objective(
            self.policy, batch.rollout, self.reinforce, **{name: self.hparams[name] for name in options}
        )
        self._record_if_solved(batch)
        self.log_rollout(objective, batch)
        terms = {"policy": objective.policy_loss, "value": objective.value_loss}
        if self.hparams["ent_coef"]:
            terms["entropy"] = -self.hparams["ent_coef"] * self._decay() * objective.entropy
        return sum_losses(terms, step=self.global_step), objective.returns

    def _decay(self) -> float:
        """Return the factor by which learning rates and entropy coefficient have decayed."""
        steps = self.hparams["decay_steps"]
        return 1.0 if steps is None else Schedule(1.0, 0.0, steps)(int(self.env_steps))

    def _record_if_solved(self, batch: RolloutBatch) -> None:
        """Record the step after which the mean return of the last 100 training episodes first solved the task."""
        threshold, mean = self.hparams["reward_threshold"], batch.episode_return
        if threshold is not None and mean is not None and mean >= threshold and self.training_solved_after < 0:
            self.training_solved_after.fill_(batch.env_steps)

    @torch.no_grad()
    def log_rollout(self, objective: PolicyGradientObjective, batch: RolloutBatch) -> None:
        """Add the fit of the value function, the entropy and the mean training return to the epoch's metrics."""
        mask = batch.rollout.mask
        returns = objective.returns[mask]
        advantage = returns - objective.reinforce_output.baseline[mask]
        variance = advantage.var(correction=0)
        metrics = {
            "value_loss": objective.value_loss,
            "entropy": objective.entropy * mask.shape[1] / mask.sum(),
            "advantage_std": variance.sqrt(),
            "explained_variance": 1 - variance / returns.var(correction=0).clamp(min=1e-6),
        }
        self.add_metrics(metrics, batch.episode_return)

    def _update(self, loss: Tensor, rollout: Rollout, returns: Tensor) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        self._clip_gradients(optimizer, num_steps=len(returns))
        optimizer.step()
        observation, returns = rollout.observation[rollout.mask], returns[rollout.mask]
        if (value := value_function(self.reinforce)) is not None:
            self.fit_value(value, observation, returns, optimizer.optimizer)
        for part in self.modules():
            if isinstance(part, RunningNorm):
                part.update(observation)
        schedule: Any = self.lr_schedulers()
        schedule.step()

    def _clip_gradients(self, optimizer: Any, num_steps: int) -> None:
        """Clip the gradients of policy and value function separately; the policy loss is a sum over time."""
        if (norm := self.hparams["max_grad_norm"]) is not None:
            for group, max_norm in zip(optimizer.param_groups, (norm * num_steps, norm), strict=False):
                total = nn.utils.get_total_norm([p.grad for p in group["params"] if p.grad is not None])
                if torch.isfinite(total):  # otherwise the check before the optimizer step names the parameter
                    nn.utils.clip_grads_with_norm_(group["params"], max_norm, total)

    def fit_value(self, value: ValueFunction, observation: Tensor, returns: Tensor, optimizer: Any) -> None:
        """Make the remaining updates of the value function, by least squares against the same returns."""
        parameters, max_norm, step = list(value.parameters()), self.hparams["max_grad_norm"], self.global_step - 1
        for _ in range(self.hparams["value_updates"] - 1):
            optimizer.zero_grad()  # the policy's gradients, too: a parameter without gradient is not updated
            sum_losses({"value": nn.functional.mse_loss(value(observation), returns)}, step).backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_norm)
            optimizer.step()
        optimizer.zero_grad()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam for policy and value function, with learning rates that decay over environment steps."""
        groups = [{"params": list(self.policy.parameters()), "lr": self.hparams["lr"]}]
        if learned := list(self.reinforce.parameters()):
            groups.append({"params": learned, "lr": self.hparams["value_lr"]})
        # While rewards are rare, gradients may be far below eps; they are then not scaled up to full steps.
        optimizer = torch.optim.Adam(groups, eps=1e-5, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: self._decay())
        return {"optimizer": optimizer, "lr_scheduler": schedule}
