from pathlib import Path
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import pytorch_lightning as pl
import torch
from torch.nn.utils import parameters_to_vector

from zoo.inference.callbacks import StopOnConvergence
from zoo.inference.diagnostics import StoppingRule
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.variational import RepeatedBatch, VariationalInference
from zoo.training._resume import ExactResume

pytestmark = pytest.mark.usefixtures("without_type_checks")

STEPS, TOLERANCE = 50, 0.1
SETTLED = torch.tensor([1.0, -2.0])


class Noisy(VariationalInference):
    """Descends ``|x - SETTLED - noise|²``, which is quick, instead of an ELBO."""

    def __init__(self):
        def guide():
            pyro.sample("z", dist.Normal(pyro.param("x", torch.full((2,), -10.0)), 1.0).to_event(1))

        def model():
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

        super().__init__(model, guide, BlackBoxELBO(), lr=0.5, schedule="constant")

    def training_step(self, batch, batch_idx):
        (x,) = self.parameters()
        return (x - SETTLED - torch.randn(2)).square().sum()


class Watch(pl.Callback):
    """Keeps the parameters after each step, before they are averaged, and when the ELBO is measured."""

    def __init__(self):
        self.iterates, self.measured = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.iterates.append(parameters_to_vector(pl_module.fitted_parameters()).detach().clone())

    def on_validation_end(self, trainer, pl_module):
        self.measured.append(parameters_to_vector(pl_module.fitted_parameters()).detach().clone())


def make():
    torch.manual_seed(0)
    return Noisy()


def train(module, callbacks, epochs=100, resume=None):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, ExactResume()],
    )
    trainer.fit(module, RepeatedBatch((), STEPS), RepeatedBatch((), 1), ckpt_path=resume, weights_only=True)
    return trainer


class Converged(NamedTuple):
    """A training that has converged, and its checkpoint."""

    parameters: torch.Tensor
    stopping: StopOnConvergence
    watch: Watch
    steps: int
    checkpoint: Path


@pytest.fixture(scope="module")
def trainings() -> dict[str, Converged]:
    return {}


@pytest.fixture
def converged(trainings, tmp_path_factory) -> Converged:
    """Trained in the first test that asks for it."""
    if "converged" not in trainings:
        module, stopping, watch = make(), StopOnConvergence(TOLERANCE, STEPS), Watch()
        trainer, checkpoint = train(module, [watch, stopping]), tmp_path_factory.mktemp("converged") / "last.ckpt"
        trainer.save_checkpoint(checkpoint)
        left = parameters_to_vector(module.fitted_parameters()).detach()
        trainings["converged"] = Converged(left, stopping, watch, trainer.global_step, checkpoint)
    return trainings["converged"]


class TestConvergence:
    def test_training_stops_at_step_of_stopping_rule(self, converged):
        rule, iterates = StoppingRule(TOLERANCE, check_interval=STEPS), converged.watch.iterates
        assert [rule.update(iterate) for iterate in iterates].index(True) == len(iterates) - 1
        assert converged.steps == len(iterates) == converged.stopping.status.step
        assert 2 * STEPS < converged.steps < 50 * STEPS

    def test_parameters_are_replaced_by_their_average(self, converged):
        start, iterates = converged.stopping.status.start, converged.watch.iterates
        assert start > STEPS
        window = torch.stack(iterates[start - 1 :])
        torch.testing.assert_close(converged.parameters, window.double().mean(0).float())
        assert (converged.parameters - iterates[-1]).abs().max() > TOLERANCE
        torch.testing.assert_close(converged.parameters, SETTLED, atol=TOLERANCE, rtol=0)

    def test_validation_after_stop_evaluates_the_average(self, converged):
        assert converged.watch.measured[-1].equal(converged.parameters)
        assert converged.watch.measured[0].equal(converged.watch.iterates[STEPS - 1])

    def test_training_continues_while_tolerance_is_not_reached(self):
        module, stopping, watch = make(), StopOnConvergence(1e-6, STEPS), Watch()
        trainer = train(module, [watch, stopping], epochs=4)
        assert trainer.global_step == 4 * STEPS
        assert not stopping.status.stop
        assert watch.iterates[-1].equal(parameters_to_vector(module.fitted_parameters()))


class TestResumedTraining:
    def test_resumed_training_stops_like_uninterrupted_one(self, converged, tmp_path):
        train(make(), [StopOnConvergence(TOLERANCE, STEPS)], epochs=2).save_checkpoint(tmp_path / "2.ckpt")
        late, resumed = make(), StopOnConvergence(TOLERANCE, STEPS)
        train(late, [resumed], resume=tmp_path / "2.ckpt")
        assert resumed.status.step > 2 * STEPS
        assert parameters_to_vector(late.fitted_parameters()).equal(converged.parameters)

    def test_resumed_training_that_had_converged_stops_at_once(self, converged):
        again = make()
        trainer = train(again, [StopOnConvergence(TOLERANCE, STEPS)], epochs=101, resume=converged.checkpoint)
        assert trainer.global_step == converged.steps
        assert parameters_to_vector(again.fitted_parameters()).equal(converged.parameters)


def test_zero_tolerance_raises():
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        StopOnConvergence(0.0, STEPS)
