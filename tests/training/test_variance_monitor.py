import copy
import csv
import random
from unittest.mock import Mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from zoo.gradients import gradient_moments
from zoo.training import GradientVarianceMonitor, read_checkpoint, variance_monitor
from zoo.training._metrics import CSVMetricsLogger
from zoo.training._resume import random_state

FIGURES = {"gradient_variance", "gradient_signal_to_noise"}


def rows(folder, without=frozenset()):
    """What a run's ``metrics.csv`` says at each step."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [
            {key: value for key, value in row.items() if value and key not in without} for row in csv.DictReader(file)
        ]
    return [row for row in found if row.keys() - {"step", "epoch"}]


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory):
    return tmp_path_factory.mktemp("unwatched")


@pytest.fixture
def differences_from_unwatched(unwatched, tmp_path, train, differences):
    """Train with and without a monitor; tell in what the last checkpoints and the logged figures differ."""
    if not (unwatched / "checkpoints").exists():
        train(unwatched)

    def compare(monitor):
        train(tmp_path, monitor)
        ends = [read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (unwatched, tmp_path)]
        found = differences(*({key: end[key] for key in end.keys() - {"callbacks", "metrics"}} for end in ends))
        return found + differences(rows(unwatched), rows(tmp_path, without=FIGURES))

    return compare


class TestTraining:
    def test_training_with_the_monitor_is_the_same_bit_for_bit(self, differences_from_unwatched):
        assert differences_from_unwatched(GradientVarianceMonitor(every_n_steps=1, num_samples=3)) == []

    def test_training_differs_if_random_states_are_not_restored(self, differences_from_unwatched, monkeypatch):
        monkeypatch.setattr(variance_monitor, "set_random_state", lambda state: None)
        found = differences_from_unwatched(GradientVarianceMonitor(every_n_steps=1, num_samples=3))
        assert "/state_dict/net.weight" in found

    def test_training_differs_if_measured_on_the_module_itself(self, differences_from_unwatched, monkeypatch):
        monkeypatch.setattr(
            variance_monitor, "_training_loss_of_copy", lambda module, *batch: module.training_step(*batch)
        )
        assert "/state_dict/mean" in differences_from_unwatched(GradientVarianceMonitor(every_n_steps=1, num_samples=3))


class Fragile(pl.LightningModule):
    """A module with every kind of state, which its training step changes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.target = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.net = nn.BatchNorm1d(3)
        self.calls, self.seen, self.generator = 0, [], torch.Generator().manual_seed(0)

    def training_step(self, batch):
        self.calls += 1
        self.seen.append(batch.sum().item())
        self.target.lerp_(self.weight.data, 0.1)
        noise = torch.randn(3, generator=self.generator) + torch.randn(3) + random.random() + np.random.rand()
        self.log("calls", float(self.calls), on_step=False, on_epoch=True)
        self.log_dict({"seen": float(len(self.seen))}, on_step=True, on_epoch=False)
        return {"loss": (self.net(batch.mul_(2)) * self.weight * noise).sum()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class Keeper(pl.Callback):
    """Keeps all that can be told of a module and its trainer, before each step."""

    def __init__(self):
        self.kept = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.kept.append(copy.deepcopy(self.state(trainer, pl_module, batch)))

    def state(self, trainer, module, batch):
        return {
            "state": module.state_dict(),
            "gradients": [p.grad for p in module.parameters() if p.grad is not None],
            "attributes": [module.calls, module.seen, module.generator.get_state(), module.training],
            "random": random_state(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "batch": batch,
            "logged": trainer.callback_metrics,
        }


def fit(module, *callbacks, **options):
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1, "logger": False, **options},
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), batch_size=4))
    return trainer


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*LeafSpec")
class TestMeasurement:
    def test_measurement_leaves_every_kind_of_state_unchanged(self, differences):
        before, after = Keeper(), Keeper()
        module = Fragile()
        fit(module, before, GradientVarianceMonitor(every_n_steps=1, num_samples=3), after)
        assert len(before.kept) == len(after.kept) == module.calls == 8
        assert differences(before.kept, after.kept) == []

    def test_measurement_leaves_logged_metrics_unchanged(self):
        plain = fit(Fragile()).callback_metrics
        assert plain.keys() == {"calls", "seen"}
        assert fit(Fragile(), GradientVarianceMonitor(every_n_steps=3, num_samples=2)).callback_metrics == plain

    def test_measurement_leaves_a_compiled_module_unchanged(self):
        class Counting(Linear):
            def training_step(self, batch, batch_idx):
                self.steps.add_(1)
                return super().training_step(batch, batch_idx)

        module = Counting()
        module.register_buffer("steps", torch.zeros(()))
        fit(
            torch.compile(module, backend="eager"),
            GradientVarianceMonitor(every_n_steps=1, num_samples=2),
            max_epochs=1,
        )
        assert module.steps == 4

    def test_random_states_are_restored_after_a_failed_measurement(self, differences):
        module = Mock(spec=pl.LightningModule)
        module.parameters.return_value = []
        trainer = Mock(global_step=0, accumulate_grad_batches=1)
        trainer.precision_plugin.train_step_context.side_effect = lambda: torch.rand(()).new_zeros(0)
        state = random_state()
        with pytest.raises(TypeError):
            GradientVarianceMonitor(1).on_train_batch_start(trainer, module, None, 0)
        assert differences(random_state(), state) == []


class Linear(pl.LightningModule):
    """A loss whose gradient is the coefficients it draws."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5))

    def training_step(self, batch, batch_idx):
        return self.weight @ (torch.randn(5) + 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*LeafSpec")
class TestLoggedMetrics:
    def test_logged_variance_is_that_of_the_training_steps_gradient(self, at, tmp_path):
        states = []
        keep = at(3, lambda module: states.append(torch.get_rng_state()))
        logger = CSVMetricsLogger(tmp_path / "metrics.csv")
        fit(Linear(), keep, GradientVarianceMonitor(every_n_steps=1, num_samples=7), logger=logger)
        torch.set_rng_state(*states)
        gradients = torch.stack([torch.randn(5) + 1 for _ in range(7)])
        variance = gradients.var(0).sum()
        logged = {name: float(logger.rows[2][name]) for name in FIGURES}
        assert logged["gradient_variance"] == pytest.approx(variance.item(), rel=1e-5)
        ratio = gradients.mean(0).norm() / variance.sqrt()
        assert logged["gradient_signal_to_noise"] == pytest.approx(ratio.item(), rel=1e-5)

    def test_variance_is_logged_every_n_steps_through_all_epochs(self, train, tmp_path):
        train(tmp_path, GradientVarianceMonitor(every_n_steps=3, num_samples=2))
        assert [int(row["step"]) for row in rows(tmp_path) if row.keys() >= FIGURES] == [0, 3, 6]

    def test_variance_is_logged_once_per_accumulated_step(self, monkeypatch):
        measure = Mock(wraps=gradient_moments)
        monkeypatch.setattr(variance_monitor, "gradient_moments", measure)
        fit(Linear(), GradientVarianceMonitor(every_n_steps=1, num_samples=2), accumulate_grad_batches=2, max_epochs=1)
        assert measure.call_count == 2

    def test_variance_is_measured_in_the_precision_of_training(self):
        used = []

        class Watched(Linear):
            def training_step(self, batch, batch_idx):
                used.append(torch.is_autocast_enabled("cpu"))
                return super().training_step(batch, batch_idx)

        fit(Watched(), GradientVarianceMonitor(every_n_steps=1, num_samples=2), precision="bf16-mixed", max_epochs=1)
        assert used == [True] * 12

    def test_variance_is_measured_with_frozen_parameters(self, tmp_path):
        logger = CSVMetricsLogger(tmp_path / "metrics.csv")
        fit(Fragile(), GradientVarianceMonitor(every_n_steps=1, num_samples=2), logger=logger, max_epochs=1)
        assert all(float(row["gradient_variance"]) > 0 for row in logger.rows.values())


class Manual(Linear):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Uncopyable(Linear):
    def training_step(self, batch, batch_idx):
        self.last_loss = super().training_step(batch, batch_idx) * 2
        return self.last_loss


class Lossless(Linear):
    def training_step(self, batch, batch_idx):
        return None


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*LeafSpec")
class TestErrors:
    def test_invalid_numbers_are_an_error(self):
        with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
            GradientVarianceMonitor(every_n_steps=0)
        with pytest.raises(ValueError, match="num_samples must be at least 2 for a variance, got 1"):
            GradientVarianceMonitor(every_n_steps=1, num_samples=1)

    @pytest.mark.parametrize(
        ("module", "sentence"),
        [
            (
                Manual,
                "the gradient of Manual cannot be monitored: it uses manual optimization",
            ),
            (Uncopyable, "the gradient of Uncopyable cannot be monitored, as something in it .* cannot be copied"),
            (Lossless, "the training step of Lossless returns no loss that could be monitored"),
        ],
    )
    def test_module_that_cannot_be_measured_is_an_error(self, module, sentence):
        with pytest.raises(ValueError, match=sentence):
            fit(module(), GradientVarianceMonitor(every_n_steps=1, num_samples=2))
