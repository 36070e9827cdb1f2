import math

import pytest
import pytorch_lightning as pl
import torch

from zoo.data import Batches, ImageSet
from zoo.gradients import (
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    SumBaseline,
)
from zoo.gradients.estimators import GradientEstimate, VIMCOBaseline
from zoo.inference.sbn import SigmoidBeliefNetwork, exact_elbo

SHAPE = (1, 4, 4)


@pytest.fixture
def make_model():
    def make(baseline="leave_one_out", decay=0.9, scale=False, **options):
        torch.manual_seed(0)
        name = {"name": baseline} if baseline in ("vimco", "enumeration") else {"baseline": baseline}
        estimator = {**name, "decay": decay, "scale": scale}
        return SigmoidBeliefNetwork(SHAPE, **{"layers": [4, 2], **options}, estimator=estimator)

    return make


@pytest.fixture
def images():
    """Two stripes, across the upper and the lower half, each many times: one bit tells them apart."""
    image = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    image[0, :, :2], image[1, :, 2:] = 255, 255
    return ImageSet(image.repeat(32, 1, 1, 1), torch.tensor([0, 1]).repeat(32))


@pytest.fixture
def fit(images):
    """Train for some epochs of four steps, and give the negative ELBO on the images, exactly."""

    def train(model, epochs=60):
        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, accelerator="cpu", log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(model, Batches(images, 16, seed=1), Batches(images, 16))
        with torch.no_grad():
            return -exact_elbo(model.network, images.images[:2].flatten(1) / 255).mean().item()

    return train


class TestEstimator:
    def test_nvil_estimator_is_made_for_each_layer(self, make_model):
        model = make_model("learned_moving_average", decay=0.8, scale=True, num_particles=1)
        assert len(model.estimator.layers) == 2
        for estimator, inputs in zip(model.estimator.layers, (16, 4), strict=True):
            average, learned = estimator.baseline.members
            assert (type(average), type(learned)) == (MovingAverageBaseline, LearnedBaseline)
            assert [layer.weight.shape for layer in (learned.net[0], learned.net[2])] == [(100, inputs), (1, 100)]
            assert average.mean.decay == estimator.scale.mean.decay == 0.8
            assert estimator.maximize

    def test_nvil_parts_can_be_disabled(self, make_model):
        assert make_model("learned_moving_average").estimator.layers[0].scale is None
        assert type(make_model("moving_average", scale=True).estimator.layers[0].baseline) is MovingAverageBaseline
        assert type(make_model("learned").estimator.layers[0].baseline) is LearnedBaseline

    def test_leave_one_out_is_over_particles(self, make_model):
        assert isinstance(make_model().estimator.layers[0].baseline, LeaveOneOutBaseline)
        assert make_model().estimator.layers[0].baseline.dim == 0
        assert isinstance(make_model("learned_leave_one_out").estimator.layers[0].baseline, SumBaseline)

    def test_vimco_has_one_estimator_for_all_layers(self, make_model):
        assert isinstance(make_model("vimco").estimator.reinforce.baseline, VIMCOBaseline)

    @pytest.mark.parametrize("name", ["leave_one_out", "learned_leave_one_out", "vimco"])
    def test_estimators_that_compare_particles_need_two(self, name, make_model):
        option = "estimator" if name == "vimco" else "estimator.baseline"
        with pytest.raises(ValueError, match=rf"^{option}={name} needs model.num_particles >= 2, got 1"):
            make_model(name, num_particles=1)
        assert make_model(name, num_particles=2)

    def test_enumeration_of_too_many_units_raises(self, make_model):
        with pytest.raises(ValueError, match="estimator=enumeration supports at most 12 units in total, got 13"):
            make_model("enumeration", layers=[13])

    @pytest.mark.parametrize("name", ["vimco", "enumeration"])
    def test_whole_bound_estimators_reject_local_signals_option(self, name, make_model):
        with pytest.raises(ValueError, match=rf"estimator={name} has no learning signals of single layers"):
            make_model(name, local_signals=False)

    def test_enumeration_rejects_scale(self, make_model):
        with pytest.raises(ValueError, match="estimator=enumeration is exact and has no signals to scale"):
            make_model("enumeration", scale=True)

    @pytest.mark.parametrize("name", ["vimco", "enumeration"])
    def test_estimators_without_baseline_reject_one(self, name):
        with pytest.raises(ValueError, match=rf"estimator={name} .* baseline.*; remove estimator.baseline"):
            SigmoidBeliefNetwork(SHAPE, estimator={"name": name, "baseline": "none"}, layers=[2])

    def test_vimco_rejects_scale(self, make_model):
        with pytest.raises(ValueError, match=r"estimator=vimco cannot be scaled.*would move the optimum"):
            make_model("vimco", scale=True)

    def test_unknown_baseline_raises_with_the_known_names(self, make_model):
        with pytest.raises(ValueError, match=r"no baseline 'rloo'; choose one of none, .*, or a number"):
            make_model("rloo")


class TestObjective:
    def test_bound_has_one_value_per_image(self, make_model, images):
        x = images.images[:6].flatten(1) / 255
        for name in ("none", "leave_one_out", "vimco", "enumeration"):
            assert make_model(name).objective(x).bound.shape == (6,)

    def test_enumeration_returns_exact_bound(self, make_model, images):
        model, x = make_model("enumeration"), images.images[:6].flatten(1) / 255
        assert torch.equal(model.objective(x).bound, exact_elbo(model.network, x))

    def test_vimco_bound_is_tighter_than_elbo(self, make_model, images):
        x = images.images.flatten(1) / 255
        one, other = (make_model(name, num_particles=50).objective(x).bound.mean() for name in ("none", "vimco"))
        assert other > one + 0.01

    def test_local_signals_can_be_switched_off(self, make_model, images):
        x, spread = images.images.flatten(1) / 255, {}
        for local in (True, False):
            torch.manual_seed(3)
            spread[local] = make_model("none", local_signals=local).objective(x).reinforce[1].advantage.var()
        assert spread[True] < spread[False]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", ["leave_one_out", "learned_moving_average", "vimco", "enumeration", "none"])
def test_training_learns_one_bit_code_of_two_images(name, make_model, fit):
    options = {"lr": 0.05, "scale": name == "learned_moving_average"}
    assert fit(make_model(name, **options), epochs=1) > 3
    assert fit(make_model(name, **options)) < 1.5  # log 2 = 0.69 at best


class TestOptimizer:
    @pytest.fixture
    def configured(self, fit):
        def configure(model):
            fit(model, epochs=1)
            return model.trainer.optimizers[0]

        return configure

    def test_every_parameter_is_in_one_optimizer_group(self, make_model, configured):
        model = make_model("learned")
        trained = [weight for group in configured(model).param_groups for weight in group["params"]]
        assert {id(weight) for weight in trained} == {id(weight) for weight in model.parameters()}
        assert len(trained) == len(list(model.parameters()))

    @pytest.mark.parametrize(("rates", "baseline_lr"), [({}, 0.02), ({"baseline_lr": 1e-3}, 1e-3)])
    def test_inference_network_and_baselines_have_their_own_learning_rates(
        self, make_model, configured, rates, baseline_lr
    ):
        model = make_model("learned", lr=0.1, inference_lr=0.02, **rates)
        rate_of = {
            id(weight): group["initial_lr"] for group in configured(model).param_groups for weight in group["params"]
        }
        parts = (model.network.down, 0.1), (model.network.up, 0.02), (model.estimator, baseline_lr)
        assert all(rate_of[id(weight)] == rate for part, rate in parts for weight in part.parameters())

    def test_learning_rates_decay_to_zero(self, make_model, configured):
        assert [group["lr"] for group in configured(make_model()).param_groups] == pytest.approx([0] * 4, abs=1e-12)

    def test_weight_decay_applies_only_to_inference_matrices(self, make_model, configured):
        model = make_model("learned", weight_decay=0.3)
        decays = {
            id(weight): group["weight_decay"] for group in configured(model).param_groups for weight in group["params"]
        }
        matrices = {id(weight) for weight in model.network.up.parameters() if weight.ndim == 2}
        assert decays == {id(weight): 0.3 * (id(weight) in matrices) for weight in model.parameters()}

    def test_sgd_is_supported(self, make_model, configured):
        assert type(configured(make_model(optimizer="sgd"))) is torch.optim.SGD

    @pytest.mark.parametrize("option", ["lr", "inference_lr", "baseline_lr", "weight_decay"])
    @pytest.mark.parametrize("value", [-1.0, math.nan])
    def test_invalid_rates_raise(self, make_model, option, value):
        with pytest.raises(ValueError, match=f"^{option} must be .*, got {value}"):
            make_model(**{option: value})

    def test_unknown_optimizer_raises_with_the_known_names(self, make_model):
        with pytest.raises(ValueError, match="unknown optimizer 'lion'; choose one of adam, sgd"):
            make_model(optimizer="lion")


class TestUse:
    def test_forward_reconstructs_training_images(self, make_model, fit, images):
        model = make_model(lr=0.05)
        fit(model)
        rebuilt = model(images.images[:2])
        assert rebuilt.shape == (2, *SHAPE)
        assert ((rebuilt > 0.5) == (images.images[:2] > 0)).all()

    def test_generate_samples_training_images(self, make_model, fit):
        model = make_model(lr=0.05, layers=[1])
        fit(model)
        columns = (model.generate(50)[:, 0, :, 0] > 0.5).unique(dim=0)
        assert {tuple(column) for column in columns.int().tolist()} == {(1, 1, 0, 0), (0, 0, 1, 1)}

    def test_seeded_output_is_reproducible_and_leaves_global_random_state(self, make_model, images):
        model, before = make_model(), torch.get_rng_state()
        assert torch.equal(model(images.images[:2]), model(images.images[:2]))
        assert torch.equal(model.generate(3), model.generate(3))
        assert not torch.equal(model.generate(3), model.generate(3, seed=1))
        assert torch.equal(torch.get_rng_state(), before)

    def test_forward_rejects_gray_images(self, make_model):
        with pytest.raises(ValueError, match="neither black nor white"):
            make_model()(torch.full((1, *SHAPE), float("nan")))


ZERO = torch.tensor(0.0)


def test_training_logs_bound_and_variance_and_baseline_per_layer(make_model, images, monkeypatch):
    signals = (torch.tensor([[1.0, 5.0]]), torch.tensor([[-2.0, 4.0]]))
    layers = Reinforce(maximize=True), Reinforce(ConstantBaseline(0.5), maximize=True)
    outs = [layer(torch.zeros(1, 2), signal) for layer, signal in zip(layers, signals, strict=True)]
    model, metrics = make_model(), {}
    objective = GradientEstimate(ZERO, ZERO, ZERO, torch.tensor([-90.0, -110.0]), outs)
    monkeypatch.setattr(model, "objective", lambda x: objective)
    monkeypatch.setattr(model, "log", lambda name, value, **options: metrics.update({name: value}))
    model.training_step(images[torch.arange(2)], batch_idx=0)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "train_negative_bound": 100,
            "advantage_variance_1": 4,
            "baseline_mean_1": 0,
            "advantage_variance_2": 9,
            "baseline_mean_2": 0.5,
        }
    )
