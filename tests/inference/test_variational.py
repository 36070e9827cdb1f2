import math

import pyro
import pyro.distributions as dist
import pytest
import pytorch_lightning as pl
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from zoo.gradients import LearnedBaseline
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.variational import RepeatedBatch, VariationalInference
from zoo.training import NonFiniteError
from zoo.training._finite import FiniteGradients

X = torch.tensor([0.5, 1.5, 2.5])
MEAN, SD = X.sum().item() / 4, 0.5  # of the posterior


@pytest.fixture(autouse=True)
def global_store():
    with pyro.get_param_store().scope():
        torch.manual_seed(0)
        yield pyro.get_param_store()


def model(x):
    z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    mean = pyro.param("mean", torch.tensor(0.0))
    pyro.sample("z", dist.Normal(mean, pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)))


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.0))
        self.sd = PyroParam(torch.tensor(1.0), constraints.positive)

    def forward(self, x):
        pyro.sample("z", dist.Normal(self.mean, self.sd))


class PlainGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.log_sd = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        pyro.sample("z", dist.Normal(self.mean, self.log_sd.exp()))


GUIDES = {"function": lambda: guide, "PyroModule": Guide, "Module": PlainGuide, "autoguide": lambda: AutoNormal(model)}


def bits(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=x)


def bits_guide(x):
    net = {"baseline": {"nn_baseline_input": x[:, None]}}
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(len(x)))), infer=net)


def make(guide=guide, model=model, elbo=None, **options):
    return VariationalInference(
        model, guide, elbo or BlackBoxELBO(num_particles=8, vectorize_particles=True), (X,), **options
    )


def train(module, steps=200, validation=True, batch=(X,), epochs=1):
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, limit_val_batches=int(validation), num_sanity_val_steps=0,
        callbacks=[FiniteGradients()],
    )  # fmt: skip
    trainer.fit(module, RepeatedBatch(batch, steps), RepeatedBatch(batch, 1))
    return trainer


@pytest.mark.usefixtures("without_type_checks")
class TestFitting:
    @pytest.mark.parametrize("kind", GUIDES)
    def test_fit_finds_posterior_with_any_kind_of_guide(self, kind):
        module = make(GUIDES[kind](), lr=0.05)
        train(module)
        z = module.sample_posterior((X,), num_samples=2000).sites["z"]
        assert abs(z.mean().item() - MEAN) < 0.1
        assert abs(z.std().item() - SD) < 0.1

    def test_fit_works_with_elbo_of_pyro(self):
        module = make(elbo=Trace_ELBO(num_particles=8), lr=0.05)
        train(module)
        assert abs(module.store.params["mean_unconstrained"].item() - MEAN) < 0.1

    def test_fit_learns_model_parameters(self):
        def with_level(x):
            level = pyro.param("level", torch.tensor(0.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(level + pyro.sample("z", dist.Normal(0.0, 0.1)), 0.1), obs=x + 5)

        def local(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(pyro.param("mean", torch.zeros(3)), 0.1))

        module = make(local, with_level, lr=0.1)
        train(module)
        assert module.store.params["level_unconstrained"].item() > 2

    def test_fit_logs_bound_and_validation_elbo_with_std_error(self):
        logged = train(make(), steps=3).callback_metrics
        assert {"train_bound", "validation_elbo", "validation_elbo_std_error"} <= logged.keys()
        assert logged["validation_elbo_std_error"] > 0

    def test_validation_uses_fixed_seed_and_preserves_random_state(self):
        module = make(lr=1e-30)
        first = train(module, steps=1).callback_metrics["validation_elbo"]
        assert train(module, steps=1).callback_metrics["validation_elbo"] == first
        states = []
        for validation in (True, False):
            torch.manual_seed(3)
            train(make(), steps=2, validation=validation, epochs=2)
            states.append(torch.get_rng_state())
        assert torch.equal(*states)


class TestParameters:
    def test_fit_leaves_global_store_unchanged(self, global_store):
        pyro.param("mean", torch.tensor(7.0))
        train(make(), steps=20)
        assert list(global_store) == ["mean"]
        assert global_store["mean"].item() == 7

    def test_parameters_exist_before_first_step(self):
        assert {name for name, _ in make().named_parameters()} == {
            "store.params.mean_unconstrained",
            "store.params.sd_unconstrained",
        }

    def test_parameters_are_restored_from_state_dict(self):
        one, other = make(), make()
        train(one, 20)
        other.load_state_dict(one.state_dict())
        assert torch.equal(other.store.params["mean_unconstrained"], one.store.params["mean_unconstrained"])

    def test_two_modules_with_equal_names_share_no_parameters(self):
        one, other = make(), make()
        train(one, 20)
        assert other.store.params["mean_unconstrained"].item() == 0

    def test_program_without_parameters_raises(self):
        with pytest.raises(ValueError, match="neither the model nor the guide has trainable parameters"):
            make(lambda x: pyro.sample("z", dist.Normal(0.0, 1.0)))


@pytest.mark.usefixtures("without_type_checks")
class TestOptimizer:
    @pytest.fixture
    def configured(self):
        def configure(module, steps=4):
            trainer = train(module, steps)
            return trainer.optimizers[0]

        return configure

    @pytest.fixture
    def learned(self):
        def make_learned(**options):
            elbo = BlackBoxELBO(num_particles=2, baseline={"z": LearnedBaseline(nn.Linear(1, 1))})
            return make(bits_guide, bits, elbo, **options)

        return make_learned

    def test_optimizer_has_own_learning_rate_for_baselines(self, learned, configured):
        module = learned(lr=0.1, baseline_lr=0.01, schedule="constant")
        optimizer = configured(module)
        rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        names = {name: rate_of[id(p)] for name, p in module.named_parameters()}
        assert sorted(names.values()) == [0.01, 0.01, 0.1]
        assert names["store.params.logits_unconstrained"] == 0.1

    def test_baseline_parameters_are_not_fitted_parameters(self, learned):
        module = learned()
        assert [x.shape for x in module.fitted_parameters()] == [X.shape]
        assert len(list(module.parameters())) == 3

    def test_baselines_have_common_learning_rate_by_default(self, learned, configured):
        assert [group["lr"] for group in configured(learned(lr=0.1, schedule="constant")).param_groups] == [0.1, 0.1]

    def test_baselines_learn_in_training_only(self, learned):
        torch.manual_seed(0)
        start = nn.Linear(1, 1).weight
        torch.manual_seed(0)
        module = learned()
        (weight,) = [p for name, p in module.named_parameters() if name.endswith("weight")]
        assert torch.equal(weight, start)
        train(module, 5)
        assert not torch.equal(weight, start)

    def test_learning_rate_decays_to_zero_or_stays_constant(self, configured):
        assert configured(make(schedule="cosine")).param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
        assert configured(make(lr=0.3, schedule="constant")).param_groups[0]["lr"] == 0.3

    def test_adagrad_can_be_chosen(self, configured):
        module = make(optimizer="adagrad", lr=1.0, schedule="constant")
        assert isinstance(configured(module), torch.optim.Adagrad)
        train(module)
        assert abs(module.store.params["mean_unconstrained"].item() - MEAN) < 0.2

    @pytest.mark.parametrize("option", ["lr", "baseline_lr"])
    @pytest.mark.parametrize("value", [-1.0, 0.0, math.nan])
    def test_learning_rates_must_be_positive(self, option, value):
        with pytest.raises(ValueError, match=f"^{option} must be above 0.*, got {value}"):
            make(**{option: value})

    @pytest.mark.parametrize(("option", "named"), [("optimizer", "adam, adagrad"), ("schedule", "constant, cosine")])
    def test_unknown_optimizer_or_schedule_raises(self, option, named):
        with pytest.raises(ValueError, match=f"unknown {option} 'best'; choose one of {named}"):
            make(**{option: "best"})


class TestFailures:
    def test_nan_parameter_stops_training_and_is_named(self):
        module = make(PlainGuide())
        module.guide.log_sd.data.fill_(torch.nan)
        with pytest.raises(
            NonFiniteError,
            match=r"at step 0: ELBO \(nan\), because of the values of guide\.log_sd; the step was not applied",
        ):
            train(module)

    def test_invalid_data_stop_training_and_site_is_named(self):
        with pytest.raises(ValueError, match=r"the data of site 'x' \(Normal\) contain NaN; remove them"):
            train(make(), batch=(X + torch.nan,))

    def test_infinite_term_stops_training_with_step_of_run(self):
        def steep(x):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.factor("wall", torch.where(x.sum() > 100, torch.inf, 0.0) + 0 * z)

        with pytest.raises(NonFiniteError, match=r"not finite at step 0: the log-probability of site 'wall'"):
            train(make(model=steep), batch=(X + 100,))

    def test_invalid_distribution_parameters_are_named_with_step_and_remedy(self):
        def guide(x):
            weights = pyro.param("weights", torch.ones(2), constraint=dist.constraints.positive)
            pyro.sample("z", dist.Dirichlet(weights))

        def model(x):
            pyro.sample("z", dist.Dirichlet(torch.tensor([3.0, 1.0])))

        with pytest.raises(ValueError, match=r"(?s)^step 1 failed: Expected .* lower the learning rate$"):
            train(make(guide=guide, model=model, lr=1e10))

    def test_mismatched_model_and_guide_raise_before_first_step(self):
        with pytest.raises(ValueError, match="the model samples 'z', which the guide does not"):
            make(
                lambda x: pyro.sample(
                    "y", dist.Normal(pyro.param("mean", torch.zeros(())), 1.0), infer={"is_auxiliary": True}
                )
            )


@pytest.mark.parametrize(
    ("batch", "expected"), [((1, 2), (1, 2)), ([1, 2], (1, 2)), (torch.Size([3]), (torch.Size([3]),))]
)
def test_batch_contains_arguments_of_model_and_guide(batch, expected, monkeypatch):
    module, received = make(), []

    def loss(model, guide, *args):
        received.append(args)
        return torch.tensor(0.0, requires_grad=True)

    monkeypatch.setattr(module.elbo, "differentiable_loss", loss)
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    module.training_step(batch, 0)
    assert received == [expected]


class TestAFrozenPart:
    class FrozenGuide(PlainGuide):
        """Has a part that is not to learn, and is to stay in eval mode."""

        def __init__(self):
            super().__init__()
            self.frozen = nn.BatchNorm1d(3).eval().requires_grad_(False)

    def test_frozen_parameters_are_not_fitted(self):
        module = make(self.FrozenGuide())
        names = {
            name for name, x in module.named_parameters() if any(x is fitted for fitted in module.fitted_parameters())
        }
        assert names == {"guide.mean", "guide.log_sd"}

    def test_frozen_module_keeps_eval_mode(self):
        module = make(self.FrozenGuide())
        assert not module.guide.frozen.training
        assert module.guide.training
        assert all(part.training for part in module.elbo.modules())


def test_each_step_yields_all_arguments():
    steps = RepeatedBatch((1, "a"), 3)
    assert len(steps) == 3
    assert list(steps) == [(1, "a")] * 3


def test_restored_pass_yields_remaining_steps_and_the_next_is_whole():
    steps, other = RepeatedBatch((1,), 5), RepeatedBatch((1,), 5)
    passed = iter(steps)
    next(passed), next(passed)
    other.load_state_dict(steps.state_dict())
    assert len(list(other)) == 3
    assert len(list(other)) == 5


def test_state_after_last_step_starts_new_epoch():
    steps, other = RepeatedBatch((1,), 5), RepeatedBatch((1,), 5)
    list(steps)
    other.load_state_dict(steps.state_dict())
    assert len(list(other)) == 5
