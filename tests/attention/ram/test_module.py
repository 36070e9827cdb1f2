import math
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest
import pytorch_lightning as pl
import torch
from scipy import stats

from zoo.attention import RecurrentAttention
from zoo.attention.ram import module as ram_module
from zoo.attention.ram._images import to_unit_range
from zoo.attention.ram.module import LOCATION_POLICIES
from zoo.attention.ram.objective import HybridObjective
from zoo.data import Batches, ImageSet
from zoo.gradients import BASELINES
from zoo.training import NonFiniteError

exact = {"rtol": 0, "atol": 0}


def trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", logger=False, num_sanity_val_steps=0, **quiet, **options)


def gradient(model, images, labels):
    """Gradient of a training step with a fixed seed."""
    torch.manual_seed(1)
    model.zero_grad()
    model.training_step((images, labels), batch_idx=1).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestPrediction:
    def test_returns_labels_probabilities_and_fixations(self, make_model, images):
        seen = make_model()(images)
        assert seen.labels.shape == (8,)
        assert seen.probabilities.shape == (3, 8, 3)
        assert seen.fixations.shape == (3, 8, 2)
        torch.testing.assert_close(seen.probabilities.sum(-1), torch.ones(3, 8))
        torch.testing.assert_close(seen.labels, seen.probabilities[-1].argmax(-1), **exact)

    def test_fixations_lie_inside_the_image_as_row_and_column(self, make_model, images):
        fixations = make_model()(images.repeat(50, 1, 1, 1)).fixations
        assert fixations[0].amin(0).tolist() == pytest.approx([1, 1], abs=0.1)
        assert fixations[0].amax(0).tolist() == pytest.approx([7, 5], abs=0.1)

    def test_first_location_is_uniform_and_the_others_are_the_means(self, make_model, images):
        model, repeated = make_model(), images.repeat(200, 1, 1, 1) / 255
        seen = model(repeated)
        first = (seen.fixations[0] - torch.tensor([4.0, 3.0])) / torch.tensor([3.0, 2.0])
        for coordinate in first.unbind(-1):
            assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-6
        trajectory = model.network.sample_trajectory(
            repeated, first[None], torch.zeros(2, 1, len(repeated), 2), std=0.0
        )
        mean = model.network.sensor.pixel_coordinates(trajectory.means[:, 0])
        torch.testing.assert_close(seen.fixations[1:], mean.detach(), rtol=0, atol=1e-3)

    def test_prediction_depends_on_the_seed_and_not_on_the_mode(self, make_model, images):
        model = make_model(location_std=0.5)
        train, test = model.train()(images, seed=3), model.eval()(images, seed=3)
        for a, b in zip(train, test, strict=True):
            torch.testing.assert_close(a, b, **exact)
        assert not torch.equal(model(images, seed=4).fixations, test.fixations)

    def test_global_random_state_is_neither_used_nor_changed(self, make_model, images):
        model = make_model()
        torch.manual_seed(5)
        before = torch.get_rng_state()
        seen = model(images)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(6)
        torch.testing.assert_close(model(images).fixations, seen.fixations, **exact)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_floats_and_bytes_give_the_same_prediction(self, make_model, images, dtype):
        model = make_model()
        for a, b in zip(model(images), model((images / 255).to(dtype)), strict=True):
            torch.testing.assert_close(a, b, **exact)

    def test_prediction_requires_no_gradient(self, make_model, images):
        assert not make_model()(images).probabilities.requires_grad

    def test_location_policy_can_be_overridden(self, make_model, images):
        model = make_model()
        assert model(images, location_policy="center").fixations.eq(torch.tensor([4.0, 3.0])).all()
        steps = model(images, location_policy="random").fixations
        assert not torch.equal(steps, model(images).fixations)
        assert steps.flatten(0, 1).unique(dim=0).shape == (24, 2)

    def test_spiral_policy_equals_a_location_network_that_outputs_zero(self, make_model, images):
        model = make_model()
        steps = model(images, location_policy="spiral").fixations
        for parameter in model.network.location_net.parameters():
            torch.nn.init.zeros_(parameter)
        torch.testing.assert_close(steps, model(images).fixations, **exact)
        assert not steps[1].eq(steps[2]).any()

    def test_spiral_policy_has_the_noise_of_the_learned_one(self, make_model, images):
        trajectory = make_model().sample_trajectory(images / 255, num_samples=5000, std=0.3, location_policy="spiral")
        torch.testing.assert_close(trajectory.locations[1:].std(dim=(1, 2)), torch.full((2, 2), 0.3), rtol=0, atol=0.01)

    @pytest.mark.parametrize("location_policy", LOCATION_POLICIES)
    def test_one_image_and_one_glimpse_are_enough(self, make_model, images, location_policy):
        seen = make_model(num_glimpses=1)(images[:1], location_policy=location_policy)
        assert seen.fixations.shape == (1, 1, 2)
        assert seen.labels.shape == (1,)

    def test_color_images_that_are_not_square_are_supported(self, make_model):
        model = make_model(image_shape=(3, 11, 20), fill_value=(0.1, 0.5, 0.9), patch_size=4, num_scales=3)
        seen = model(torch.randint(256, (2, 3, 11, 20), dtype=torch.uint8))
        assert seen.fixations.shape == (3, 2, 2)
        assert model.network.image_encoder.in_features == 3 * 3 * 4 * 4


class TestInvalidImages:
    @pytest.mark.parametrize(
        ("images", "sentence"),
        [
            (torch.zeros(0, 1, 9, 7), "must have shape .* and not be empty"),
            (torch.zeros(9, 7), "must have shape"),
            (torch.zeros(2, 1, 7, 9), r"\(1, 9, 7\), got a batch of shape \(2, 1, 7, 9\)"),
            (torch.zeros(2, 3, 9, 7), r"\(1, 9, 7\), got a batch of shape \(2, 3, 9, 7\)"),
            (torch.full((1, 1, 9, 7), math.nan), "NaN or infinity"),
            (torch.full((1, 1, 9, 7), 255.0), r"\[0, 1\]"),
        ],
    )
    @pytest.mark.parametrize("location_policy", LOCATION_POLICIES)
    def test_invalid_images_raise_a_one_line_error(
        self, make_model, without_type_checks, images, sentence, location_policy
    ):
        with pytest.raises(ValueError, match=sentence) as error:
            make_model()(images, location_policy=location_policy)
        assert "\n" not in str(error.value)

    def test_unknown_location_policy_raises(self, make_model, images):
        with pytest.raises(
            ValueError, match="location_policy must be one of learned, spiral, random, center, got 'left'"
        ):
            make_model()(images, location_policy="left")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"location_policy": "left"}, "location_policy must be one of learned, spiral, random, center, got 'left'"),
            ({"num_glimpses": 0}, "num_glimpses must be a whole number of 1 or more, got 0"),
            ({"num_samples": 0}, "num_samples must be a whole number of 1 or more, got 0"),
            ({"location_hidden": -1}, "location_hidden must be 0 .* or a number of units, got -1"),
            ({"spiral_radius": -0.1}, "spiral_radius must be between 0 .* and 1 .*, got -0.1"),
            ({"spiral_radius": math.nan}, "spiral_radius must be between"),
            (
                {"baseline": "leave_one_out"},
                "leave_one_out compares trajectories .* num_samples must be at least 2, got 1",
            ),
            ({"location_std": 0.0}, "location_std must be above 0"),
            ({"location_std": math.nan}, "location_std must be above 0"),
            ({"final_location_std": -0.1}, "final_location_std must be above 0"),
            ({"lr": 0.0}, "lr must be above 0"),
            ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
            ({"patch_size": 0}, "patch_size must be"),
            ({"num_scales": 0}, "num_scales must be"),
            ({"patch_size": 9}, "covers a whole side"),
            ({"location_range": -1.0}, "location_range must be a positive number"),
            ({"reinforce_core": True, "scale": True}, "the running scale would change their balance"),
            (
                {"baseline": "leraned"},
                "no baseline 'leraned'; choose one of none, moving_average.*Did you mean learned?",
            ),
            (
                {"name": "vimco"},
                "model=ram does not support estimator=vimco, which needs importance weights; use .*=reinforce",
            ),
            ({"baseline": "nvil"}, "^nvil is an estimator: set estimator=nvil$"),
            ({"name": "leave_one_out"}, "leave_one_out is a baseline: set estimator.baseline=leave_one_out"),
        ],
    )
    def test_invalid_option_raises(self, make_model, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            make_model(**options)

    @pytest.mark.parametrize(
        ("side", "options", "sides"),
        [
            (28, {}, (8,)),
            (60, {}, (12, 24, 48)),
            (100, {}, (12, 24, 48, 96)),
            (512, {}, (12, 24, 48, 96, 192, 384)),
            (512, {"num_scales": 1}, (12,)),
            (60, {"patch_size": 40}, (40, 80)),
        ],
    )
    def test_default_patch_sizes_depend_on_the_image_size(self, side, options, sides):
        model = RecurrentAttention(image_shape=(1, side, side), classes=("a", "b"), **options)
        assert model.network.sensor.patch_sizes == sides

    def test_hyperparameters_are_saved_as_plain_data(self, make_model, tmp_path):
        model = make_model(location_range=2.0, num_scales=2)
        torch.save(dict(model.hparams), tmp_path / "options.pt")
        options = torch.load(tmp_path / "options.pt", weights_only=True)
        assert options["location_range"] == 2.0
        assert RecurrentAttention(**options).hparams == model.hparams

    def test_default_estimator_is_the_papers(self):
        for estimator in (None, {}, {"scale": True}):
            model = RecurrentAttention((1, 9, 7), ("a", "b"), patch_size=3, estimator=estimator)
            assert type(model.reinforce.baseline).__name__ == "LearnedBaseline"
            assert (model.reinforce.scale is not None) is bool(estimator)
            assert model.reinforce.maximize

    def test_estimator_is_built_from_its_options(self):
        estimator = {"baseline": "moving_average", "decay": 0.5, "scale": True}
        reinforce = RecurrentAttention((1, 9, 7), ("a", "b"), patch_size=3, estimator=estimator).reinforce
        assert type(reinforce.baseline).__name__ == "MovingAverageBaseline"
        assert reinforce.baseline.mean.decay == reinforce.scale.mean.decay == 0.5


class TestLoad:
    @pytest.fixture
    def save(self, tmp_path):
        def save(module, **changed):
            checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
            torch.save(checkpoint | {"model": "RecurrentAttention", "config": {}} | changed, tmp_path / "last.ckpt")
            return tmp_path / "last.ckpt"

        return save

    def test_loaded_model_makes_the_same_predictions(self, make_model, save, images):
        model = make_model(location_range=2.5, num_scales=2, location_hidden=5, reinforce_core=False, num_glimpses=4)
        loaded = RecurrentAttention.load(save(model))
        assert not loaded.training
        assert loaded.hparams == model.hparams
        for a, b in zip(loaded(images), model(images), strict=True):
            torch.testing.assert_close(a, b, **exact)

    def test_path_may_be_a_string(self, make_model, save, images):
        assert RecurrentAttention.load(str(save(make_model())))(images).labels.shape == (8,)

    def test_missing_file_raises(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*last\.ckpt"):
            RecurrentAttention.load(tmp_path / "last.ckpt")

    def test_damaged_file_raises(self, make_model, save):
        path = save(make_model())
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged or not a checkpoint"):
            RecurrentAttention.load(path)

    def test_checkpoint_of_another_model_raises(self, make_model, save):
        with pytest.raises(ValueError, match="is a checkpoint of Captioner, not of RecurrentAttention"):
            RecurrentAttention.load(save(make_model(), model="Captioner"))

    @pytest.mark.parametrize("part", ["hyper_parameters", "state_dict"])
    def test_checkpoint_of_another_version_raises(self, make_model, save, part):
        model = make_model()
        old = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}[part]
        with pytest.raises(ValueError, match=r"last\.ckpt is of another version of RecurrentAttention"):
            RecurrentAttention.load(save(model, **{part: {**old, "retina": torch.zeros(())}}))

    def test_checkpoint_without_an_option_raises_since_its_default_may_have_changed(self, make_model, save):
        model = make_model()
        options = {name: value for name, value in model.hparams.items() if name != "spiral_radius"}
        with pytest.raises(ValueError, match="another version of RecurrentAttention: options spiral_radius"):
            RecurrentAttention.load(save(model, hyper_parameters=options))


class TestTrainingStep:
    @pytest.mark.parametrize("baseline", BASELINES)
    @pytest.mark.parametrize("scale", [False, True])
    def test_each_estimator_trains_location_network_and_classifier(self, make_model, images, labels, baseline, scale):
        model = make_model(baseline, scale, num_samples=2, policy_weight=1.0)
        gradients = gradient(model, images, labels)
        assert gradients["network.classifier.weight"].any()
        assert any(g.any() for name, g in gradients.items() if name.startswith("network.location_net"))
        assert any(name.startswith("reinforce") for name in gradients) is ("learned" in baseline)

    @pytest.mark.parametrize("location_policy", LOCATION_POLICIES)
    @pytest.mark.parametrize("glimpses", [1, 3])
    def test_every_trainable_parameter_gets_a_gradient(self, make_model, images, labels, location_policy, glimpses):
        model = make_model(location_policy=location_policy, num_glimpses=glimpses)
        model.training_step((images, labels), batch_idx=1).backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []  # or distributed training would stop

    @pytest.mark.parametrize(
        "options", [{"location_policy": "random"}, {"location_policy": "center"}, {"num_glimpses": 1}]
    )
    def test_without_learned_locations_only_classifier_and_features_are_trained(
        self, make_model, images, labels, options
    ):
        gradients = gradient(make_model(**options), images, labels)
        assert {"network.classifier.weight", "network.image_encoder.weight"} <= gradients.keys()
        assert not any(name.startswith(("network.location_net", "reinforce")) for name in gradients)

    def test_policy_weight_scales_the_gradient_of_the_location_network_only(self, make_model, images, labels):
        options = {"reinforce_core": False, "location_std": 0.2}
        once, twice = (gradient(make_model(policy_weight=w, **options), images, labels) for w in (0.5, 1.0))
        for name in once:
            factor = 2 if name.startswith("network.location_net") else 1
            torch.testing.assert_close(twice[name], factor * once[name])

    @pytest.mark.parametrize("term", ["cross-entropy", "policy", "baseline"])
    def test_nonfinite_loss_stops_training(self, make_model, images, labels, term):
        model = make_model(location_hidden=0)
        network = model.network
        spoiled = {"cross-entropy": network.classifier, "policy": network.location_net, "baseline": model.reinforce}[
            term
        ]
        torch.nn.utils.vector_to_parameters(torch.full((1000,), math.nan), spoiled.parameters())
        with pytest.raises(NonFiniteError, match=rf"at step 0: .*{term} \(nan\)"):
            model.training_step((images, labels), batch_idx=1)

    def test_metrics_are_computed_every_tenth_step(self, make_model, images, labels, monkeypatch):
        model, watched = make_model(), Mock(side_effect=lambda _: {"train_error": 0.5})
        monkeypatch.setattr(HybridObjective, "metrics", watched)
        with patch.object(model, "log"), patch.object(model, "log_dict"):
            for batch_idx in range(21):
                model.training_step((images, labels), batch_idx)
        assert watched.call_count == 3

    def test_num_samples_trajectories_are_sampled(self, make_model, images, labels):
        model = make_model(num_samples=3, num_glimpses=4, location_std=0.25)
        with patch.object(model.network, "sample_trajectory", wraps=model.network.sample_trajectory) as trajectory:
            model.training_step((images, labels), batch_idx=1)
        _, first, noise, std = trajectory.call_args.args
        assert first.shape == (3, 8, 2)
        assert noise.shape == (3, 3, 8, 2)
        assert noise.std() == pytest.approx(1, abs=0.3)
        assert std == 0.25


class TestLocationStd:
    def at(self, model, step, steps):
        model.trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=steps)
        return model.location_std()

    def test_std_is_constant_without_a_final_one(self, make_model):
        model = make_model(location_std=0.2)
        assert [self.at(model, step, 100) for step in (0, 50, 99)] == [0.2] * 3

    def test_std_is_annealed_linearly_to_the_last_step(self, make_model):
        model = make_model(location_std=0.2, final_location_std=0.1)
        assert [self.at(model, step, 101) for step in (0, 50, 100, 200)] == pytest.approx([0.2, 0.15, 0.1, 0.1])

    def test_std_keeps_its_initial_value_with_no_last_step_or_a_single_one(self, make_model):
        model = make_model(location_std=0.2, final_location_std=0.1)
        assert self.at(model, 1000, math.inf) == self.at(model, 0, 1) == 0.2


class TestTraining:
    @pytest.fixture
    def batches(self, images, labels):
        return Batches(ImageSet(images, labels), batch_size=4)

    @pytest.mark.parametrize("location_policy", ["learned", "spiral", "random"])
    def test_trainer_can_fit_the_model(self, make_model, batches, location_policy):
        model = make_model(location_policy=location_policy, final_location_std=0.05)
        before = {name: p.clone() for name, p in model.named_parameters()}
        fit = trainer(max_epochs=2, gradient_clip_val=5.0)
        fit.fit(model, batches, batches)
        logged = {"train_error", "cross_entropy", "validation_error"}
        if location_policy == "learned":
            logged |= {"location_grad_norm", "policy_loss", "advantage_mean"}
        assert logged <= fit.callback_metrics.keys()
        assert ("location_grad_norm" in fit.callback_metrics) is (location_policy == "learned")
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert "network.classifier.weight" in moved
        assert ("network.location_net.0.weight" in moved) is (location_policy == "learned")

    def test_probe_changes_no_other_weight_even_if_the_gradient_is_clipped(self, make_model, batches):
        def trained(probe_weight):
            model = make_model()
            objective = ram_module.hybrid_objective
            scaled = lambda *args: (out := objective(*args))._replace(probe_loss=probe_weight * out.probe_loss)  # noqa: E731
            with patch.object(ram_module, "hybrid_objective", scaled):
                pl.seed_everything(0, verbose=False)
                trainer(max_epochs=2, gradient_clip_val=0.01).fit(model, batches, batches)
            return model.network.state_dict()

        little, much = trained(1.0), trained(1000.0)
        assert all(torch.equal(little[name], much[name]) for name in little if not name.startswith("probe"))

    def test_gradient_norm_is_clipped(self, make_model, images, labels):
        model = make_model()
        gradient(model, images, labels)
        model.configure_gradient_clipping(torch.optim.SGD(model.parameters()), 0.01)
        probe = set(model.network.probe.parameters())
        for part in (probe, set(model.parameters()) - probe):
            norm = torch.nn.utils.get_total_norm([p.grad for p in part if p.grad is not None])
            assert norm.item() == pytest.approx(0.01, rel=1e-3)

    def test_learning_rate_is_annealed_to_zero(self, make_model, batches):
        rates = []
        note = pl.callbacks.LambdaCallback(
            on_train_batch_start=lambda trainer, *_: rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        )
        fit = trainer(max_epochs=3, callbacks=[note])
        fit.fit(make_model(lr=0.01, weight_decay=0.5), batches, batches)
        (group,) = fit.optimizers[0].param_groups
        assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 6)) for step in range(6)])
        assert group["lr"] == pytest.approx(0)
        assert group["weight_decay"] == 0.5

    def test_validation_error_is_that_of_the_mean_policy(self, make_model, images, labels):
        model = make_model()
        with patch.object(model, "log") as log:
            model.validation_step((images, labels), batch_idx=7)
        name, error = log.call_args.args
        assert name == "validation_error"
        assert error == (model(images, seed=7).labels != labels).float().mean()


def test_all_tensors_move_with_the_module(make_model):
    model = make_model(baseline="moving_average", scale=True, num_scales=2)
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"cpu"}
    model.to("meta")
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}
    assert not [name for name, x in vars(model.network.sensor).items() if isinstance(x, torch.Tensor)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_prediction_and_training_run_on_a_gpu(make_model, images, labels):
    model = make_model().cuda()
    assert model(images.cuda()).fixations.device.type == "cuda"
    gradients = gradient(model, images.cuda(), labels.cuda())
    assert gradients["network.location_net.0.weight"].any()


def test_random_numbers_are_drawn_in_single_precision_in_half_precision_training(make_model, images):
    model = make_model(num_glimpses=4)
    pixels = images / 255
    full = model.sample_trajectory(pixels, 50, std=1.0, generator=torch.Generator().manual_seed(0))
    half_precision = torch.bfloat16
    torch.set_default_dtype(half_precision)  # as Lightning does for precision="bf16-true"
    try:
        half = model.to(half_precision).sample_trajectory(
            pixels.to(half_precision), 50, std=1.0, generator=torch.Generator().manual_seed(0)
        )
    finally:
        torch.set_default_dtype(torch.float32)
    assert half.locations.dtype == half_precision
    assert torch.equal(half.locations[0], full.locations[0].to(half_precision))
    noise, expected = (run.locations[1:].float() - run.means.float() for run in (half, full))
    torch.testing.assert_close(noise, expected, rtol=0, atol=0.05)


class TestToUnitRange:
    def test_bytes_are_divided_by_255(self):
        images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
        assert to_unit_range(images).flatten().tolist() == pytest.approx([0, 0.2, 1])

    def test_floats_are_returned_unchanged(self):
        images = torch.tensor([0.0, 0.2, 1.0]).reshape(1, 1, 1, 3)
        assert to_unit_range(images) is images

    @pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (0, 1, 28, 28), (1, 1, 2, 3, 4)])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_empty_batch_or_other_shape_raises(self, shape, dtype):
        with pytest.raises(
            ValueError, match=r"^images must have shape \(images, channels, height, width\) and not be empty"
        ):
            to_unit_range(torch.zeros(shape, dtype=dtype))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_nonfinite_value_raises(self, value):
        images = torch.zeros(2, 1, 4, 4)
        images[1, 0, 2, 3] = value
        with pytest.raises(ValueError, match="contain NaN or infinity"):
            to_unit_range(images)

    @pytest.mark.parametrize(
        ("value", "range_"), [(-0.5, "from -0.5 to 0"), (1.5, "from 0 to 1.5"), (255.0, "from 0 to 255")]
    )
    def test_float_outside_the_unit_range_raises(self, value, range_):
        images = torch.zeros(2, 1, 4, 4)
        images[1, 0, 2, 3] = value
        with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got values {range_}"):
            to_unit_range(images)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_other_dtype_raises(self, dtype):
        with pytest.raises(ValueError, match="must be uint8 or floats"):
            to_unit_range(torch.zeros(1, 1, 4, 4, dtype=dtype))
