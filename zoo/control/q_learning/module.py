import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from zoo.control.callbacks import validate
from zoo.control.epoch_means import PassMeans
from zoo.control.evaluators import Score
from zoo.control.prediction import Predictor
from zoo.control.q_learning.exploration import ExploringPolicy, check_strength
from zoo.control.q_learning.loss import LOSSES, bellman_loss, q_target, visit_weights
from zoo.control.q_learning.options import check_options
from zoo.control.q_learning.q_functions import q_function
from zoo.control.q_learning.replay_buffer import Replay, Transitions, single_steps
from zoo.control.rollout import Batch, Rollout
from zoo.control.schedules import Schedule
from zoo.training import LoadableModule, sum_losses


class QLearning(Predictor, LoadableModule):
    """Q-learning by gradient descent on the squared Bellman error, from a table to a deep network.

    Watkins, "Learning from delayed rewards", 1989, is the table with no option; Mnih et al., "Human-level control
    through deep reinforcement learning", 2015, the network with replay, target network and Huber loss.

    A table is not approximate: one gradient step with learning rate 1 on ``Σ w ½ (y - Q(s, a))²`` is the textbook's
    ``Q(s, a) ← Q(s, a) + α (y - Q(s, a))``, for each visit of ``(s, a)`` in the batch; see ``visit_weights``. Its step
    size falls with the visits of that entry, ``α = lr · visits^-visit_power``.

    Args:
        observation: the number of states, for a table; or the shape of an observation, for a network.
        actions: number of actions.
        gamma: the discount.
        lr: step size of a table's first visit of an entry, at most 1; or learning rate of Adam.
        lr_decay_steps: environment steps in which a network's learning rate falls to 0, linearly; None to keep it.
        visit_power: ``ω``; 0 for a fixed step size. Between 1/2 and 1 a table converges (Robbins & Monro, 1951).
        exploration: a name of ``EXPLORATIONS``.
        exploration_initial: its number at the first environment step: ``ε``, or a temperature.
        exploration_final: the same at the last of ``exploration_steps``, and from then on.
        exploration_steps: environment steps from one to the other.
        exploration_schedule: ``linear``, or ``geometric`` for equal ratios.
        loss: ``squared`` or ``huber``.
        buffer_size: environment steps that are remembered; 0 to learn from each rollout once, when it is new.
        learning_starts: environment steps before anything is learned from the replay buffer.
        gradient_steps: gradient steps a rollout, from the replay buffer.
        batch_size: transitions drawn for each.
        n_steps: steps taken together, ``n``; needs a replay buffer.
        target_update_interval: gradient steps between two updates of the target network; 0 to have none.
        tau: how far it then moves to the present network; 1 all the way.
        double: choose by the present network the action that the target network judges.
        dueling: end a network with ``Dueling``.
        hidden: units of a network's hidden layers.
        max_grad_norm: the gradient of a network is clipped to this norm; None to leave it.
        reward_threshold: score from which on the task counts as solved; None if it never does.
        stop_on_reward_threshold: stop training at the first measurement that solves the task.
        seed: of the measurements.
        spaces: of the environment, for ``predict``; see ``described_spaces``. None where observations and actions are
            those of the policy.

    Raises:
        ValueError: an option has no such value, or would have no effect without another one.

    Example:
        >>> model = QLearning(observation=16, actions=4)
        >>> model.policy.act(torch.tensor([3, 5]), model.policy.noise(2)).shape
        torch.Size([2])
    """

    env_steps: Tensor
    descents: Tensor
    solved_after: Tensor
    visits: Tensor | None

    def __init__(
        self,
        observation: int | Sequence[int],
        actions: int,
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
        for strength in (exploration_initial, exploration_final):
            check_strength(exploration, strength)
        self.save_hyperparameters()
        defaults = {name: option.default for name, option in inspect.signature(QLearning).parameters.items()}
        check_options(self.hparams, defaults, table=isinstance(observation, int))
        self.automatic_optimization = False
        self.progress = PassMeans()
        self.schedule = Schedule(exploration_initial, exploration_final, exploration_steps, exploration_schedule)
        self.policy = ExploringPolicy(
            q_function(observation, actions, hidden, dueling), actions, exploration, self.schedule(0)
        )
        self.target = copy.deepcopy(self.policy.q).requires_grad_(False) if target_update_interval else None
        self.replay = Replay(buffer_size, n_steps, gamma) if buffer_size else None
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("descents", torch.zeros((), dtype=torch.int64))
        self.register_buffer("solved_after", torch.tensor(-1))
        entries = observation * actions if isinstance(observation, int) else None
        self.register_buffer("visits", None if entries is None else torch.zeros(entries, dtype=torch.int64))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Learn from a rollout, or from what is remembered of all of them."""
        self.env_steps.fill_(batch.env_steps)
        optimizer: Any = self.optimizers()
        if (steps := self.hparams["lr_decay_steps"]) is not None:
            for group in optimizer.param_groups:
                group["lr"] = Schedule(self.hparams["lr"], 0.0, steps)(batch.env_steps)
        losses = []
        for transitions in self.batches(batch.rollout):
            loss = sum_losses({"bellman": self.loss(transitions)}, step=self.global_step)
            self.descend(loss)
            losses.append(loss.detach())
        self.policy.strength.fill_(self.schedule(batch.env_steps))
        self.log_progress(losses, batch.episode_return)

    def log_progress(self, losses: list[Tensor], episode_return: float | None) -> None:
        """Note the mean loss of a rollout's gradient steps, the returns while learning, and how much it explores."""
        metrics: dict[str, Any] = {"exploration": self.policy.strength}
        if losses:
            metrics["bellman_loss"] = torch.stack(losses).mean()
        self.progress.add(metrics, {} if episode_return is None else {"episode_return": episode_return})

    def on_train_epoch_end(self) -> None:
        """Log the means over the pass, and the training return at its end."""
        self.log_dict(self.progress.take())

    def validation_step(self, score: Score, batch_idx: int) -> None:
        """Measure the frozen policy, and stop if the task is solved."""
        validate(self, score)

    def batches(self, rollout: Rollout) -> Iterator[Transitions]:
        """Give what each gradient step learns from."""
        if self.replay is None:
            yield single_steps(rollout, self.hparams["gamma"])
            return
        self.replay.add(rollout)
        if self.env_steps >= self.hparams["learning_starts"] and self.replay.kept > self.hparams["n_steps"]:
            for _ in range(self.hparams["gradient_steps"]):
                yield self.replay.sample(self.hparams["batch_size"])

    def loss(self, batch: Transitions) -> Tensor:
        """Squared Bellman error: a weighted sum for a table, the mean for a network."""
        q, slow = self.policy.q, self.policy.q if self.target is None else self.target
        with torch.no_grad():
            chosen_by = q(batch.following) if self.hparams["double"] else None
            target = q_target(batch.reward, batch.terminated, slow(batch.following), batch.discount, chosen_by)
        values = q(batch.observation).gather(-1, batch.action[:, None]).squeeze(-1)
        errors = bellman_loss(values, target, self.hparams["loss"])
        return errors.mean() if self.visits is None else (self.textbook_weights(batch, self.visits) * errors).sum()

    def textbook_weights(self, batch: Transitions, visits: Tensor) -> Tensor:
        """Weights of a table's errors, by the visits of each entry, which are counted here."""
        entry = batch.observation * self.hparams["actions"] + batch.action
        step_size = self.hparams["lr"] * (1 + visits[entry]) ** -self.hparams["visit_power"]
        visits += entry.bincount(minlength=len(visits))
        return visit_weights(entry, step_size)

    def descend(self, loss: Tensor) -> None:
        """Make a gradient step, and let the target network follow."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.visits is None:
            self.clip_gradients(optimizer, self.hparams["max_grad_norm"], "norm")
        optimizer.step()
        self.descents += 1
        if self.target is not None and self.descents % self.hparams["target_update_interval"] == 0:
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.policy.q.parameters(), strict=True):
                    slow.lerp_(fast, self.hparams["tau"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam for a network; for a table plain descent, whose step size is in the loss."""
        parameters = self.policy.q.parameters()
        if self.visits is not None:
            return torch.optim.SGD(parameters, lr=1.0)
        return torch.optim.Adam(parameters, lr=self.hparams["lr"], fused=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the replay buffer and what was noted of the present pass, as plain data."""
        checkpoint["progress"] = self.progress.state_dict()
        if self.replay is not None:
            checkpoint["replay"] = self.replay.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fill the replay buffer again, and go on with what was noted."""
        self.progress.load_state_dict(checkpoint["progress"])
        if self.replay is not None:
            self.replay.load_state_dict(checkpoint["replay"])
