import pyro
import pyro.distributions as dist
import pytest
import pytorch_lightning as pl
import torch
from torch.nn.utils import parameters_to_vector

from zoo.inference._batch import RepeatedBatch
from zoo.inference.callbacks import StopOnConvergence
from zoo.inference.diagnostics import StoppingRule
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.variational import VariationalInference
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


@pytest.fixture
def make():
    def make_module():
        torch.manual_seed(0)
        return Noisy()

    return make_module


@pytest.fixture
def train(tmp_path):
    def fit(module, callbacks, epochs=100, resume=None):
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
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return trainer

    return fit


class TestTheEnd:
    def test_training_stops_at_step_of_stopping_rule(self, make, train):
        module, stopping, watch = make(), StopOnConvergence(TOLERANCE, STEPS), Watch()
        trainer = train(module, [watch, stopping])
        rule = StoppingRule(TOLERANCE, check_interval=STEPS)
        assert [rule.update(iterate) for iterate in watch.iterates].index(True) == len(watch.iterates) - 1
        assert trainer.global_step == len(watch.iterates) == stopping.status.step
        assert 2 * STEPS < trainer.global_step < 50 * STEPS

    def test_parameters_are_replaced_by_their_average(self, make, train):
        module, stopping, watch = make(), StopOnConvergence(TOLERANCE, STEPS), Watch()
        train(module, [watch, stopping])
        assert stopping.status.start > STEPS
        window = torch.stack(watch.iterates[stopping.status.start - 1 :])
        left = parameters_to_vector(module.fitted_parameters()).detach()
        torch.testing.assert_close(left, window.double().mean(0).float())
        assert (left - watch.iterates[-1]).abs().max() > TOLERANCE
        torch.testing.assert_close(left, SETTLED, atol=TOLERANCE, rtol=0)

    def test_validation_after_stop_evaluates_the_average(self, make, train):
        module, watch = make(), Watch()
        train(module, [watch, StopOnConvergence(TOLERANCE, STEPS)])
        assert watch.measured[-1].equal(parameters_to_vector(module.fitted_parameters()))
        assert watch.measured[0].equal(watch.iterates[STEPS - 1])

    def test_training_continues_while_tolerance_is_not_reached(self, make, train):
        module, stopping, watch = make(), StopOnConvergence(1e-6, STEPS), Watch()
        trainer = train(module, [watch, stopping], epochs=4)
        assert trainer.global_step == 4 * STEPS
        assert not stopping.status.stop
        assert watch.iterates[-1].equal(parameters_to_vector(module.fitted_parameters()))


class TestAResumedTraining:
    def test_resumed_training_stops_like_uninterrupted_one(self, make, train, tmp_path):
        whole, late = make(), make()
        train(whole, [StopOnConvergence(TOLERANCE, STEPS)])
        train(make(), [StopOnConvergence(TOLERANCE, STEPS)], epochs=2)
        resumed = StopOnConvergence(TOLERANCE, STEPS)
        train(late, [resumed], resume=tmp_path / "2.ckpt")
        assert resumed.status.step > 2 * STEPS
        assert all(map(torch.equal, whole.fitted_parameters(), late.fitted_parameters()))

    def test_resumed_training_that_had_converged_stops_at_once(self, make, train, tmp_path):
        steps = train(make(), [StopOnConvergence(TOLERANCE, STEPS)]).global_step
        again = make()
        trainer = train(again, [StopOnConvergence(TOLERANCE, STEPS)], epochs=101, resume=tmp_path / "100.ckpt")
        assert trainer.global_step == steps
        saved = torch.load(tmp_path / "100.ckpt", weights_only=True)["state_dict"]
        assert all(saved[name].equal(value) for name, value in again.state_dict().items())


def test_zero_tolerance_raises():
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        StopOnConvergence(0.0, STEPS)
