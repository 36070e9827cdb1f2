import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo.control._module import ControlModule
from zoo.control.q_learning._options import check_options
from zoo.control.q_learning.exploration import ExploringPolicy
from zoo.control.q_learning.loss import LOSSES, q_learning_target, td_loss, visit_weights
from zoo.control.q_learning.q_functions import QNetwork, QTable
from zoo.control.q_learning.replay_buffer import ReplayBuffer, Transitions
from zoo.control.rollout import Rollout
from zoo.control.rollout_dataset import RolloutBatch
from zoo.control.schedules import Schedule
from zoo.training import sum_losses


class QLearning(ControlModule):
    """Q-learning by gradient descent on the squared TD error, with a table or a deep network.

    With a table it is the algorithm of Watkins, "Learning from delayed rewards", 1989; with a network, replay buffer,
    target network and Huber loss that of Mnih et al., "Human-level control through deep reinforcement learning", 2015.

    A gradient step of a table equals the update ``Q(s, a) ← Q(s, a) + α (y - Q(s, a))`` for each visit of ``(s, a)``
    in the batch; see ``visit_weights``. The step size decays with the visits, ``α = lr · visits^-visit_power``.

    Args:
        observation_shape: shape of an observation for a network, number of states for a table.
        num_actions: number of actions.
        gamma: discount factor ``γ``.
        lr: learning rate of Adam for a network; step size at the first visit of an entry for a table, at most 1.
        lr_decay_steps: environment steps in which a network's learning rate decays linearly to 0; None for no decay.
        visit_power: 0 for a constant step size. A table converges with a power in (1/2, 1] (Robbins & Monro, 1951).
        exploration: ``epsilon_greedy``, ``boltzmann`` or ``proportional``.
        exploration_initial: initial value of its parameter: ``ε``, temperature or power.
        exploration_final: value from ``exploration_steps`` on.
        exploration_steps: environment steps from the initial to the final value.
        exploration_schedule: ``linear``, or ``geometric`` for equal ratios.
        loss: ``squared`` or ``huber``.
        buffer_size: capacity of the replay buffer in environment steps; 0 to learn from each rollout once.
        learning_starts: environment steps before the first gradient step from the replay buffer.
        gradient_steps: gradient steps per rollout, from the replay buffer.
        batch_size: number of transitions per gradient step.
        n_steps: number of steps ``n`` of n-step returns; more than 1 requires a replay buffer.
        target_update_interval: gradient steps between two updates of the target network; 0 for no target network.
        tau: coefficient of these updates, ``Q̄ ← (1 - τ) Q̄ + τ Q``; 1 for a hard update.
        double: select the action of the target by the online network (double Q-learning).
        dueling: use a ``Dueling`` head.
        hidden: sizes of a network's hidden layers.
        max_grad_norm: maximum norm of a network's gradient; None for no clipping.
        reward_threshold: value of the monitored metric at which the task counts as solved; None if there is none.
        stop_on_reward_threshold: stop training at the first evaluation that solves the task.
        seed: seed of the evaluations.
        spaces: ``VectorEnvAdapter.spaces``, for conversions in ``predict``; None if none are needed.

    Raises:
        ValueError: an option has an invalid value, or no effect without another one.

    Example:
        >>> model = QLearning(observation_shape=16, num_actions=4)
        >>> model.policy.act(torch.tensor([3, 5]), model.policy.noise(2)).shape
        torch.Size([2])
    """

    num_updates: Tensor
    visits: Tensor | None

    def __init__(
        self,
        observation_shape: int | Sequence[int],
        num_actions: int,
        gamma: float = 0.99,
        lr: float = 1.0,
        lr_decay_steps: int | None = None,
        visit_power: float = 0.7,
        exploration: str = "epsilon_greedy",
        exploration_initial: float = 1.0,
        exploration_final: float = 0.1,
        exploration_steps: int = 100_000,
        exploration_schedule: str = "linear",
        loss: str = "squared",
        buffer_size: int = 0,
        learning_starts: int = 0,
        gradient_steps: int = 1,
        batch_size: int = 64,
        n_steps: int = 1,
        target_update_interval: int = 0,
        tau: float = 1.0,
        double: bool = False,
        dueling: bool = False,
        hidden: list[int] = [128, 128],  # noqa: B006
        max_grad_norm: float | None = 10.0,
        reward_threshold: float | None = None,
        stop_on_reward_threshold: bool = True,
        seed: int = 0,
        spaces: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"there is no loss {loss!r}; choose one of {', '.join(LOSSES)}")
        for parameter in (exploration_initial, exploration_final):
            ExploringPolicy.check_parameter(exploration, parameter)
        self.save_hyperparameters()
        defaults = {name: option.default for name, option in inspect.signature(QLearning).parameters.items()}
        check_options(self.hparams, defaults, table=isinstance(observation_shape, int))
        self.automatic_optimization = False
        self.schedule = Schedule(exploration_initial, exploration_final, exploration_steps, exploration_schedule)
        q: nn.Module
        if isinstance(observation_shape, int):
            q = QTable(observation_shape, num_actions)
        else:
            q = QNetwork(observation_shape, num_actions, hidden, dueling)
        self.policy = ExploringPolicy(q, num_actions, exploration, self.schedule(0))
        self.target = copy.deepcopy(self.policy.q).requires_grad_(False) if target_update_interval else None
        self.replay_buffer = ReplayBuffer(buffer_size, n_steps, gamma) if buffer_size else None
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        entries = observation_shape * num_actions if isinstance(observation_shape, int) else None
        self.register_buffer("visits", None if entries is None else torch.zeros(entries, dtype=torch.int64))

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Learn from a rollout, or from samples of the replay buffer that it is added to."""
        self.env_steps.fill_(batch.env_steps)
        optimizer: Any = self.optimizers()
        if (steps := self.hparams["lr_decay_steps"]) is not None:
            for group in optimizer.param_groups:
                group["lr"] = Schedule(self.hparams["lr"], 0.0, steps)(batch.env_steps)
        losses = []
        for transitions in self.batches(batch.rollout):
            loss = sum_losses({"td": self.loss(transitions)}, step=self.global_step)
            self._gradient_step(loss)
            losses.append(loss.detach())
        self.policy.parameter.fill_(self.schedule(batch.env_steps))
        metrics: dict[str, Any] = {"exploration": self.policy.parameter}
        if losses:
            metrics["td_loss"] = torch.stack(losses).mean()
        self.add_metrics(metrics, batch.episode_return)

    def batches(self, rollout: Rollout) -> Iterator[Transitions]:
        """Yield the batch of each gradient step."""
        if self.replay_buffer is None:
            yield Transitions.from_rollout(rollout, self.hparams["gamma"])
            return
        self.replay_buffer.add(rollout)
        if self.env_steps >= self.hparams["learning_starts"] and self.replay_buffer.size > self.hparams["n_steps"]:
            for _ in range(self.hparams["gradient_steps"]):
                yield self.replay_buffer.sample(self.hparams["batch_size"])

    def loss(self, batch: Transitions) -> Tensor:
        """Return the TD loss: a weighted sum for a table, the mean for a network."""
        q, target_q = self.policy.q, self.policy.q if self.target is None else self.target
        with torch.no_grad():
            q_selector = q(batch.next_observation) if self.hparams["double"] else None
            next_q = target_q(batch.next_observation)
            target = q_learning_target(batch.reward, batch.terminated, next_q, batch.discount, q_selector)
        values = q(batch.observation).gather(-1, batch.action[:, None]).squeeze(-1)
        losses = td_loss(values, target, self.hparams["loss"])
        return losses.mean() if self.visits is None else (self._table_weights(batch, self.visits) * losses).sum()

    def _table_weights(self, batch: Transitions, visits: Tensor) -> Tensor:
        entry = batch.observation * self.hparams["num_actions"] + batch.action
        step_size = self.hparams["lr"] * (1 + visits[entry]) ** -self.hparams["visit_power"]
        visits += entry.bincount(minlength=len(visits))
        return visit_weights(entry, step_size)

    def _gradient_step(self, loss: Tensor) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.visits is None:
            self.clip_gradients(optimizer, self.hparams["max_grad_norm"], "norm")
        optimizer.step()
        self.num_updates += 1
        if self.target is not None and self.num_updates % self.hparams["target_update_interval"] == 0:
            with torch.no_grad():
                for target, online in zip(self.target.parameters(), self.policy.q.parameters(), strict=True):
                    target.lerp_(online, self.hparams["tau"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam for a network, and plain gradient descent for a table, whose step size is in the loss."""
        parameters = self.policy.q.parameters()
        if self.visits is not None:
            return torch.optim.SGD(parameters, lr=1.0)
        return torch.optim.Adam(parameters, lr=self.hparams["lr"], fused=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the replay buffer and the metrics of the current epoch."""
        super().on_save_checkpoint(checkpoint)
        if self.replay_buffer is not None:
            checkpoint["replay_buffer"] = self.replay_buffer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the replay buffer and the metrics of the current epoch."""
        super().on_load_checkpoint(checkpoint)
        if self.replay_buffer is not None:
            self.replay_buffer.load_state_dict(checkpoint["replay_buffer"])
