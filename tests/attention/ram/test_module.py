import math
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest
import pytorch_lightning as pl
import torch
from scipy import stats

from zoo.attention import RecurrentAttention
from zoo.attention.ram import module as recurrent_attention
from zoo.attention.ram.diagnostics import diagnostics
from zoo.attention.ram.module import GAZES
from zoo.data import Batches, ImageSet
from zoo.gradients import BASELINES
from zoo.training import NonFiniteError

exact = {"rtol": 0, "atol": 0}


def trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", logger=False, num_sanity_val_steps=0, **quiet, **options)


def gradient(model, images, labels):
    """Of a training step in which all randomness is the same at every call."""
    torch.manual_seed(1)
    model.zero_grad()
    model.training_step((images, labels), batch_idx=1).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestRecognition:
    def test_gives_labels_probabilities_and_the_path(self, make_model, images):
        seen = make_model()(images)
        assert seen.labels.shape == (8,)
        assert seen.probabilities.shape == (3, 8, 3)
        assert seen.path.shape == (3, 8, 2)
        torch.testing.assert_close(seen.probabilities.sum(-1), torch.ones(3, 8))
        torch.testing.assert_close(seen.labels, seen.probabilities[-1].argmax(-1), **exact)

    def test_the_path_lies_inside_the_picture_row_before_column(self, make_model, images):
        path = make_model()(images.repeat(50, 1, 1, 1)).path
        assert path[0].amin(0).tolist() == pytest.approx([1, 1], abs=0.1)
        assert path[0].amax(0).tolist() == pytest.approx([7, 5], abs=0.1)

    def test_the_first_glimpse_is_uniform_and_the_others_follow_the_mean(self, make_model, images):
        model, pictures = make_model(), images.repeat(200, 1, 1, 1) / 255
        seen = model(pictures)
        first = (seen.path[0] - torch.tensor([4.0, 3.0])) / torch.tensor([3.0, 2.0])
        for coordinate in first.unbind(-1):
            assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 1e-6
        rollout = model.network.rollout(pictures, first[None], torch.zeros(2, 1, len(pictures), 2), std=0.0)
        mean = model.network.sensor.centres(rollout.means[:, 0])
        torch.testing.assert_close(seen.path[1:], mean.detach(), rtol=0, atol=1e-3)

    def test_the_same_seed_gives_the_same_answer_in_any_mode_and_another_one_does_not(self, make_model, images):
        model = make_model(location_std=0.5)
        train, test = model.train()(images, seed=3), model.eval()(images, seed=3)
        for a, b in zip(train, test, strict=True):
            torch.testing.assert_close(a, b, **exact)
        assert not torch.equal(model(images, seed=4).path, test.path)

    def test_the_randomness_of_training_is_neither_used_nor_changed(self, make_model, images):
        model = make_model()
        torch.manual_seed(5)
        before = torch.get_rng_state()
        seen = model(images)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(6)
        torch.testing.assert_close(model(images).path, seen.path, **exact)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_fractions_and_bytes_mean_the_same(self, make_model, images, dtype):
        model = make_model()
        for a, b in zip(model(images), model((images / 255).to(dtype)), strict=True):
            torch.testing.assert_close(a, b, **exact)

    def test_no_gradient_is_kept(self, make_model, images):
        assert not make_model()(images).probabilities.requires_grad

    def test_the_gaze_can_be_given(self, make_model, images):
        model = make_model()
        assert model(images, gaze="centre").path.eq(torch.tensor([4.0, 3.0])).all()
        steps = model(images, gaze="random").path
        assert not torch.equal(steps, model(images).path)
        assert steps.flatten(0, 1).unique(dim=0).shape == (24, 2)

    def test_a_gaze_on_the_spiral_is_that_of_a_locator_that_says_nothing(self, make_model, images):
        model = make_model()
        steps = model(images, gaze="spiral").path
        for parameter in model.network.locator.parameters():
            torch.nn.init.zeros_(parameter)
        torch.testing.assert_close(steps, model(images).path, **exact)
        assert not steps[1].eq(steps[2]).any()

    def test_it_is_as_noisy_as_the_learned_one(self, make_model, images):
        walk = make_model().walk(images / 255, rollouts=5000, std=0.3, gaze="spiral")
        torch.testing.assert_close(walk.locations[1:].std(dim=(1, 2)), torch.full((2, 2), 0.3), rtol=0, atol=0.01)

    @pytest.mark.parametrize("gaze", GAZES)
    def test_one_picture_and_one_glimpse_are_enough(self, make_model, images, gaze):
        seen = make_model(glimpses=1)(images[:1], gaze=gaze)
        assert seen.path.shape == (1, 1, 2)
        assert seen.labels.shape == (1,)

    def test_pictures_in_colour_and_not_square_can_be_read(self, make_model):
        model = make_model(image_shape=(3, 11, 20), background=(0.1, 0.5, 0.9), glimpse_size=4, scales=3)
        seen = model(torch.randint(256, (2, 3, 11, 20), dtype=torch.uint8))
        assert seen.path.shape == (3, 2, 2)
        assert model.network.what.in_features == 3 * 3 * 4 * 4


class TestBadPictures:
    @pytest.mark.parametrize(
        ("images", "sentence"),
        [
            (torch.zeros(0, 1, 9, 7), "at least one of them"),
            (torch.zeros(9, 7), "must have shape"),
            (torch.zeros(2, 1, 7, 9), r"\(1, 9, 7\), got a batch of shape \(2, 1, 7, 9\)"),
            (torch.zeros(2, 3, 9, 7), r"\(1, 9, 7\), got a batch of shape \(2, 3, 9, 7\)"),
            (torch.full((1, 1, 9, 7), math.nan), "not finite"),
            (torch.full((1, 1, 9, 7), 255.0), r"\[0, 1\]"),
        ],
    )
    @pytest.mark.parametrize("gaze", GAZES)
    def test_they_are_an_error_in_one_sentence(self, make_model, without_type_checks, images, sentence, gaze):
        with pytest.raises(ValueError, match=sentence) as error:
            make_model()(images, gaze=gaze)
        assert "\n" not in str(error.value)

    def test_a_gaze_that_does_not_exist_is_one_too(self, make_model, images):
        with pytest.raises(ValueError, match="no gaze 'left'; choose one of learned, spiral, random, centre"):
            make_model()(images, gaze="left")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"gaze": "left"}, "no gaze 'left'; choose one of learned, spiral, random, centre"),
            ({"glimpses": 0}, "glimpses must be a whole number of 1 or more, got 0"),
            ({"rollouts": 0}, "rollouts must be a whole number of 1 or more, got 0"),
            ({"locator_hidden": -1}, "locator_hidden must be 0 .* or a number of units, got -1"),
            ({"spread": -0.1}, "spread must be between 0 .* and 1 .*, got -0.1"),
            ({"spread": math.nan}, "spread must be between"),
            ({"baseline": "leave_one_out"}, "leave_one_out compares walks .* rollouts must be at least 2, got 1"),
            ({"location_std": 0.0}, "location_std must be above 0"),
            ({"location_std": math.nan}, "location_std must be above 0"),
            ({"final_location_std": -0.1}, "final_location_std must be above 0"),
            ({"lr": 0.0}, "lr must be above 0"),
            ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
            ({"glimpse_size": 0}, "glimpse_size must be"),
            ({"scales": 0}, "scales must be"),
            ({"glimpse_size": 9}, "covers a whole side"),
            ({"span": -1.0}, "span must be a positive number"),
            ({"reinforce_core": True, "scale": True}, "the running scale would shift their balance"),
            ({"baseline": "leraned"}, "no baseline 'leraned'; choose one of none, moving_average"),
        ],
    )
    def test_one_that_makes_no_sense_is_an_error(self, make_model, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            make_model(**options)

    @pytest.mark.parametrize(
        ("side", "options", "sides"),
        [
            (28, {}, (8,)),
            (60, {}, (12, 24, 48)),
            (100, {}, (12, 24, 48, 96)),
            (512, {}, (12, 24, 48, 96, 192, 384)),
            (512, {"scales": 1}, (12,)),
            (60, {"glimpse_size": 40}, (40, 80)),
        ],
    )
    def test_default_glimpse_suits_the_size_of_the_image(self, side, options, sides):
        model = RecurrentAttention(image_shape=(1, side, side), classes=("a", "b"), **options)
        assert model.network.sensor.sides == sides

    def test_they_are_kept_as_plain_data(self, make_model, tmp_path):
        model = make_model(span=2.0, scales=2)
        torch.save(dict(model.hparams), tmp_path / "options.pt")
        options = torch.load(tmp_path / "options.pt", weights_only=True)
        assert options["span"] == 2.0
        assert RecurrentAttention(**options).hparams == model.hparams

    def test_the_estimator_is_the_one_of_the_paper_unless_another_is_named(self):
        for estimator in (None, {}, {"scale": True}):
            model = RecurrentAttention((1, 9, 7), ("a", "b"), glimpse_size=3, estimator=estimator)
            assert type(model.reinforce.baseline).__name__ == "Learned"
            assert (model.reinforce.scale is not None) is bool(estimator)
            assert model.reinforce.maximize

    def test_the_estimator_is_made_as_it_is_described(self, make_model):
        model = make_model(baseline="moving_average", scale=True)
        assert type(model.reinforce.baseline).__name__ == "MovingAverage"
        assert model.reinforce.scale is not None


class TestLoad:
    @pytest.fixture
    def save(self, tmp_path):
        def save(module, **changed):
            checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
            torch.save(checkpoint | {"model": "RecurrentAttention", "config": {}} | changed, tmp_path / "last.ckpt")
            return tmp_path / "last.ckpt"

        return save

    def test_the_model_answers_as_before(self, make_model, save, images):
        model = make_model(span=2.5, scales=2, locator_hidden=5, reinforce_core=False, glimpses=4)
        loaded = RecurrentAttention.load(save(model))
        assert not loaded.training
        assert loaded.hparams == model.hparams
        for a, b in zip(loaded(images), model(images), strict=True):
            torch.testing.assert_close(a, b, **exact)

    def test_a_path_may_be_a_string(self, make_model, save, images):
        assert RecurrentAttention.load(str(save(make_model())))(images).labels.shape == (8,)

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*last\.ckpt"):
            RecurrentAttention.load(tmp_path / "last.ckpt")

    def test_a_damaged_file_is_an_error(self, make_model, save):
        path = save(make_model())
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged or no checkpoint"):
            RecurrentAttention.load(path)

    def test_another_model_is_an_error(self, make_model, save):
        with pytest.raises(ValueError, match="is a checkpoint of Captioner, not of RecurrentAttention"):
            RecurrentAttention.load(save(make_model(), model="Captioner"))

    @pytest.mark.parametrize("part", ["hyper_parameters", "state_dict"])
    def test_another_version_of_the_model_is_an_error(self, make_model, save, part):
        model = make_model()
        old = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}[part]
        with pytest.raises(ValueError, match=r"last\.ckpt is of another version of RecurrentAttention"):
            RecurrentAttention.load(save(model, **{part: {**old, "retina": torch.zeros(())}}))

    def test_one_without_an_option_is_an_error_since_its_default_may_be_another(self, make_model, save):
        model = make_model()
        options = {name: value for name, value in model.hparams.items() if name != "spread"}
        with pytest.raises(ValueError, match="another version of RecurrentAttention: options spread"):
            RecurrentAttention.load(save(model, hyper_parameters=options))


class TestTrainingStep:
    @pytest.mark.parametrize("baseline", BASELINES)
    @pytest.mark.parametrize("scale", [False, True])
    def test_each_estimator_trains_the_gaze_and_the_classifier(self, make_model, images, labels, baseline, scale):
        model = make_model(baseline, scale, rollouts=2, policy_weight=1.0)
        gradients = gradient(model, images, labels)
        assert gradients["network.classifier.weight"].any()
        assert any(g.any() for name, g in gradients.items() if name.startswith("network.locator"))
        assert any(name.startswith("reinforce") for name in gradients) is ("learned" in baseline)

    @pytest.mark.parametrize("gaze", GAZES)
    @pytest.mark.parametrize("glimpses", [1, 3])
    def test_all_that_is_to_be_trained_gets_a_gradient(self, make_model, images, labels, gaze, glimpses):
        model = make_model(gaze=gaze, glimpses=glimpses)
        model.training_step((images, labels), batch_idx=1).backward()
        waiting = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert waiting == []  # or distributed training would stop

    @pytest.mark.parametrize("options", [{"gaze": "random"}, {"gaze": "centre"}, {"glimpses": 1}])
    def test_without_a_learned_gaze_only_the_classifier_and_its_features_learn(
        self, make_model, images, labels, options
    ):
        gradients = gradient(make_model(**options), images, labels)
        assert {"network.classifier.weight", "network.what.weight"} <= gradients.keys()
        assert not any(name.startswith(("network.locator", "reinforce")) for name in gradients)

    def test_the_policy_is_weighed(self, make_model, images, labels):
        options = {"reinforce_core": False, "location_std": 0.2}
        once, twice = (gradient(make_model(policy_weight=w, **options), images, labels) for w in (0.5, 1.0))
        for name in once:
            factor = 2 if name.startswith("network.locator") else 1
            torch.testing.assert_close(twice[name], factor * once[name])

    @pytest.mark.parametrize("term", ["cross-entropy", "policy", "baseline"])
    def test_a_loss_that_is_not_finite_stops_the_training(self, make_model, images, labels, term):
        model = make_model(locator_hidden=0)
        network = model.network
        spoiled = {"cross-entropy": network.classifier, "policy": network.locator, "baseline": model.reinforce}[term]
        torch.nn.utils.vector_to_parameters(torch.full((1000,), math.nan), spoiled.parameters())
        with pytest.raises(NonFiniteError, match=rf"at step 0: .*{term} \(nan\)"):
            model.training_step((images, labels), batch_idx=1)

    def test_every_tenth_step_is_diagnosed(self, make_model, images, labels, monkeypatch):
        model, watched = make_model(), Mock(wraps=diagnostics)
        monkeypatch.setattr("zoo.attention.ram.module.diagnostics", watched)
        with patch.object(model, "log"), patch.object(model, "log_dict"):
            for batch_idx in range(21):
                model.training_step((images, labels), batch_idx)
        assert watched.call_count == 3

    def test_as_many_walks_are_made_as_were_asked_for(self, make_model, images, labels):
        model = make_model(rollouts=3, glimpses=4, location_std=0.25)
        with patch.object(model.network, "rollout", wraps=model.network.rollout) as rollout:
            model.training_step((images, labels), batch_idx=1)
        _, first, noise, std = rollout.call_args.args
        assert first.shape == (3, 8, 2)
        assert noise.shape == (3, 3, 8, 2)
        assert noise.std() == pytest.approx(1, abs=0.3)
        assert std == 0.25


class TestLocationStd:
    def at(self, model, step, steps):
        model.trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=steps)
        return model.location_std()

    def test_stays_as_it_is_by_default(self, make_model):
        model = make_model(location_std=0.2)
        assert [self.at(model, step, 100) for step in (0, 50, 99)] == [0.2] * 3

    def test_is_annealed_linearly_to_the_last_step(self, make_model):
        model = make_model(location_std=0.2, final_location_std=0.1)
        assert [self.at(model, step, 101) for step in (0, 50, 100, 200)] == pytest.approx([0.2, 0.15, 0.1, 0.1])

    def test_stays_where_it_starts_if_there_is_no_last_step_or_but_one(self, make_model):
        model = make_model(location_std=0.2, final_location_std=0.1)
        assert self.at(model, 1000, math.inf) == self.at(model, 0, 1) == 0.2


class TestTraining:
    @pytest.fixture
    def batches(self, images, labels):
        return Batches(ImageSet(images, labels), batch_size=4)

    @pytest.mark.parametrize("gaze", ["learned", "spiral", "random"])
    def test_a_trainer_can_fit_it(self, make_model, batches, gaze):
        model = make_model(gaze=gaze, final_location_std=0.05)
        before = {name: p.clone() for name, p in model.named_parameters()}
        fit = trainer(max_epochs=2, gradient_clip_val=5.0)
        fit.fit(model, batches, batches)
        logged = {"train_error", "cross_entropy", "validation_error"}
        if gaze == "learned":
            logged |= {"locator_gradient_norm", "policy_loss", "advantage_mean"}
        assert logged <= fit.callback_metrics.keys()
        assert ("locator_gradient_norm" in fit.callback_metrics) is (gaze == "learned")
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert "network.classifier.weight" in moved
        assert ("network.locator.0.weight" in moved) is (gaze == "learned")

    def test_the_probe_changes_no_other_weight_even_where_the_gradient_is_clipped(self, make_model, batches):
        def trained(probe_weight):
            model = make_model()
            objective = recurrent_attention.hybrid_objective
            scaled = lambda *args: (out := objective(*args))._replace(probe=probe_weight * out.probe)  # noqa: E731
            with patch.object(recurrent_attention, "hybrid_objective", scaled):
                pl.seed_everything(0, verbose=False)
                trainer(max_epochs=2, gradient_clip_val=0.01).fit(model, batches, batches)
            return model.network.state_dict()

        little, much = trained(1.0), trained(1000.0)
        assert all(torch.equal(little[name], much[name]) for name in little if not name.startswith("probe"))

    def test_gradient_is_clipped_to_its_norm(self, make_model, images, labels):
        model = make_model()
        gradient(model, images, labels)
        model.configure_gradient_clipping(torch.optim.SGD(model.parameters()), 0.01)
        probe = set(model.network.probe.parameters())
        for part in (probe, set(model.parameters()) - probe):
            norm = torch.nn.utils.get_total_norm([p.grad for p in part if p.grad is not None])
            assert norm.item() == pytest.approx(0.01, rel=1e-3)

    def test_the_learning_rate_falls_to_zero(self, make_model, batches):
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

    def test_the_validation_error_is_that_of_the_mean_policy(self, make_model, images, labels):
        model = make_model()
        with patch.object(model, "log") as log:
            model.validation_step((images, labels), batch_idx=7)
        name, error = log.call_args.args
        assert name == "validation_error"
        assert error == (model(images, seed=7).labels != labels).float().mean()


def test_every_tensor_of_its_state_moves_with_it(make_model):
    model = make_model(baseline="moving_average", scale=True, scales=2)
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"cpu"}
    model.to("meta")
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}
    assert not [name for name, x in vars(model.network.sensor).items() if isinstance(x, torch.Tensor)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_looks_and_learns_on_a_gpu(make_model, images, labels):
    model = make_model().cuda()
    assert model(images.cuda()).path.device.type == "cuda"
    gradients = gradient(model, images.cuda(), labels.cuda())
    assert gradients["network.locator.0.weight"].any()


def test_what_is_random_is_drawn_in_single_precision_in_half_precision_too(make_model, images):
    model = make_model(glimpses=4)
    pictures = images / 255
    full = model.walk(pictures, 50, std=1.0, generator=torch.Generator().manual_seed(0))
    half_precision = torch.bfloat16
    torch.set_default_dtype(half_precision)  # as Lightning does for precision="bf16-true"
    try:
        half = model.to(half_precision).walk(
            pictures.to(half_precision), 50, std=1.0, generator=torch.Generator().manual_seed(0)
        )
    finally:
        torch.set_default_dtype(torch.float32)
    assert half.locations.dtype == half_precision
    assert torch.equal(half.locations[0], full.locations[0].to(half_precision))
    noise, expected = (run.locations[1:].float() - run.means.float() for run in (half, full))
    torch.testing.assert_close(noise, expected, rtol=0, atol=0.05)
