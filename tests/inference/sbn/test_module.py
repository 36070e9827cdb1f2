import math

import pytest
import pytorch_lightning as pl
import torch

from zoo.data import Batches, ImageSet
from zoo.gradients import Learned, LeaveOneOut, MovingAverage, Sum
from zoo.gradients.estimators import LeaveOneOutBound
from zoo.inference.sbn import SigmoidBeliefNetwork, exact_elbo

SHAPE = (1, 4, 4)


@pytest.fixture
def make_model():
    def make(baseline="leave_one_out", decay=0.9, scale=False, **options):
        torch.manual_seed(0)
        estimator = {"baseline": baseline, "decay": decay, "scale": scale}
        return SigmoidBeliefNetwork(SHAPE, **{"layers": [4, 2], **options}, estimator=estimator)

    return make


@pytest.fixture
def pictures():
    """Two stripes, across the upper and the lower half, each many times: one bit tells them apart."""
    image = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    image[0, :, :2], image[1, :, 2:] = 255, 255
    return ImageSet(image.repeat(32, 1, 1, 1), torch.tensor([0, 1]).repeat(32))


@pytest.fixture
def fit(pictures):
    """Train for some epochs of four steps, and give the negative ELBO on the pictures, exactly."""

    def train(model, epochs=60):
        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, accelerator="cpu", log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(model, Batches(pictures, 16, seed=1), Batches(pictures, 16))
        with torch.no_grad():
            return -exact_elbo(model.network, pictures.images[:2].flatten(1) / 255).mean().item()

    return train


class TestEstimator:
    def test_nvil_s_parts_are_made_for_each_layer(self, make_model):
        model = make_model("learned_moving_average", decay=0.8, scale=True, particles=1)
        assert len(model.reinforce) == 2
        for estimator, inputs in zip(model.reinforce, (16, 4), strict=True):
            average, learned = estimator.baseline.members
            assert (type(average), type(learned)) == (MovingAverage, Learned)
            assert [layer.weight.shape for layer in (learned.net[0], learned.net[2])] == [(100, inputs), (1, 100)]
            assert average.mean.decay == estimator.scale.mean.decay == 0.8
            assert estimator.maximize

    def test_each_part_can_be_left_away(self, make_model):
        assert make_model("learned_moving_average").reinforce[0].scale is None
        assert type(make_model("moving_average", scale=True).reinforce[0].baseline) is MovingAverage
        assert type(make_model("learned").reinforce[0].baseline) is Learned

    def test_leave_one_out_compares_particles(self, make_model):
        assert isinstance(make_model().reinforce[0].baseline, LeaveOneOut)
        assert make_model().reinforce[0].baseline.dim == 0
        assert isinstance(make_model("learned_leave_one_out").reinforce[0].baseline, Sum)

    def test_vimco_has_one_estimator_for_all_layers(self, make_model):
        (estimator,) = make_model("vimco").reinforce
        assert isinstance(estimator.baseline, LeaveOneOutBound)

    @pytest.mark.parametrize("name", ["leave_one_out", "learned_leave_one_out", "vimco"])
    def test_what_compares_particles_needs_two(self, name, make_model):
        with pytest.raises(ValueError, match=rf"estimator={name} needs model.particles of 2 or more, got 1"):
            make_model(name, particles=1)
        assert make_model(name, particles=2)

    def test_enumeration_has_a_limit(self, make_model):
        with pytest.raises(ValueError, match="estimator=enumeration goes through at most 12 units, got 13"):
            make_model("enumeration", layers=[13])

    @pytest.mark.parametrize("name", ["vimco", "enumeration"])
    def test_what_has_no_signals_of_layers_takes_no_option_for_them(self, name, make_model):
        with pytest.raises(ValueError, match=rf"estimator={name} has no signals of single layers"):
            make_model(name, local_signals=False)

    def test_what_is_exact_is_not_scaled(self, make_model):
        with pytest.raises(ValueError, match="estimator=enumeration is exact, and has no signals to scale"):
            make_model("enumeration", scale=True)

    def test_the_score_of_vimco_is_not_scaled_beside_its_path(self, make_model):
        with pytest.raises(ValueError, match=r"estimator=vimco cannot be scaled.*would move the optimum"):
            make_model("vimco", scale=True)

    def test_there_is_no_other(self, make_model):
        with pytest.raises(ValueError, match=r"no baseline 'rloo'; .*, vimco, enumeration, or a number"):
            make_model("rloo")


class TestObjective:
    def test_with_one_particle_or_more_its_bound_has_a_figure_for_each_picture(self, make_model, pictures):
        x = pictures.images[:6].flatten(1) / 255
        for name in ("none", "leave_one_out", "vimco", "enumeration"):
            assert make_model(name).objective(x).bound.shape == (6,)

    def test_enumeration_has_the_exact_bound(self, make_model, pictures):
        model, x = make_model("enumeration"), pictures.images[:6].flatten(1) / 255
        assert torch.equal(model.objective(x).bound, exact_elbo(model.network, x))

    def test_vimco_s_bound_is_the_tighter_one(self, make_model, pictures):
        x = pictures.images.flatten(1) / 255
        one, other = (make_model(name, particles=50).objective(x).bound.mean() for name in ("none", "vimco"))
        assert other > one + 0.01

    def test_local_signals_can_be_switched_off(self, make_model, pictures):
        x, spread = pictures.images.flatten(1) / 255, {}
        for local in (True, False):
            torch.manual_seed(3)
            spread[local] = make_model("none", local_signals=local).objective(x).reinforce[1].advantage.var()
        assert spread[True] < spread[False]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("name", ["leave_one_out", "learned_moving_average", "vimco", "enumeration", "none"])
def test_it_learns_that_one_bit_tells_two_pictures_apart(name, make_model, fit):
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

    def test_every_weight_is_trained_once(self, make_model, configured):
        model = make_model("learned")
        trained = [weight for group in configured(model).param_groups for weight in group["params"]]
        assert {id(weight) for weight in trained} == {id(weight) for weight in model.parameters()}
        assert len(trained) == len(list(model.parameters()))

    @pytest.mark.parametrize(("rates", "baseline_lr"), [({}, 0.02), ({"baseline_lr": 1e-3}, 1e-3)])
    def test_the_inference_network_and_the_baselines_may_learn_more_slowly(
        self, make_model, configured, rates, baseline_lr
    ):
        model = make_model("learned", lr=0.1, inference_lr=0.02, **rates)
        rate_of = {
            id(weight): group["initial_lr"] for group in configured(model).param_groups for weight in group["params"]
        }
        parts = (model.network.down, 0.1), (model.network.up, 0.02), (model.reinforce, baseline_lr)
        assert all(rate_of[id(weight)] == rate for part, rate in parts for weight in part.parameters())

    def test_the_rates_fall_to_zero(self, make_model, configured):
        assert [group["lr"] for group in configured(make_model()).param_groups] == pytest.approx([0] * 4, abs=1e-12)

    def test_the_inference_network_s_matrices_alone_decay(self, make_model, configured):
        model = make_model("learned", weight_decay=0.3)
        decays = {
            id(weight): group["weight_decay"] for group in configured(model).param_groups for weight in group["params"]
        }
        matrices = {id(weight) for weight in model.network.up.parameters() if weight.ndim == 2}
        assert decays == {id(weight): 0.3 * (id(weight) in matrices) for weight in model.parameters()}

    def test_plain_gradient_descent_is_a_choice(self, make_model, configured):
        assert type(configured(make_model(optimizer="sgd"))) is torch.optim.SGD

    @pytest.mark.parametrize("option", ["lr", "inference_lr", "baseline_lr", "weight_decay"])
    @pytest.mark.parametrize("value", [-1.0, math.nan])
    def test_rates_are_positive_numbers(self, make_model, option, value):
        with pytest.raises(ValueError, match=f"^{option} must be .*, got {value}"):
            make_model(**{option: value})

    def test_there_is_no_other(self, make_model):
        with pytest.raises(ValueError, match="no optimizer 'lion'; choose one of adam, sgd"):
            make_model(optimizer="lion")


class TestUse:
    def test_it_reconstructs_what_it_has_learned(self, make_model, fit, pictures):
        model = make_model(lr=0.05)
        fit(model)
        rebuilt = model(pictures.images[:2])
        assert rebuilt.shape == (2, *SHAPE)
        assert ((rebuilt > 0.5) == (pictures.images[:2] > 0)).all()

    def test_it_dreams_of_what_it_has_learned(self, make_model, fit):
        model = make_model(lr=0.05, layers=[1])
        fit(model)
        columns = (model.generate(50)[:, 0, :, 0] > 0.5).unique(dim=0)
        assert {tuple(column) for column in columns.int().tolist()} == {(1, 1, 0, 0), (0, 0, 1, 1)}

    def test_the_same_seed_gives_the_same_and_leaves_the_training_s_randomness_alone(self, make_model, pictures):
        model, before = make_model(), torch.get_rng_state()
        assert torch.equal(model(pictures.images[:2]), model(pictures.images[:2]))
        assert torch.equal(model.generate(3), model.generate(3))
        assert not torch.equal(model.generate(3), model.generate(3, seed=1))
        assert torch.equal(torch.get_rng_state(), before)

    def test_pictures_it_cannot_read_are_refused_in_words(self, make_model):
        with pytest.raises(ValueError, match="neither black nor white"):
            make_model()(torch.full((1, *SHAPE), float("nan")))
