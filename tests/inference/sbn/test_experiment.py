import pytest
import torch

from zoo.data import ImageData, ImageSet, is_binary
from zoo.inference.sbn import experiment as module
from zoo.inference.sbn.experiment import BeliefNetworkExperiment

METRICS = {
    "test_negative_elbo": 112.351,
    "test_negative_elbo_std_error": 0.301,
    "validation_negative_elbo": 113.1,
    "validation_negative_elbo_std_error": 0.3,
    "test_negative_bound_100": 105.1,
    "test_negative_bound_100_std_error": 0.2,
}


@pytest.fixture
def gray():
    """Forty images of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 6, 5), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(40) % 4)


@pytest.fixture
def make_experiment(gray):
    def make(binary=False, validation=True, **options):
        images = ImageSet(255 * (gray.images > 127).to(torch.uint8), gray.labels) if binary else gray
        data = ImageData("noise", images, images if validation else None, lambda: images, ("a",), (0.0,))
        estimator = {"baseline": "leave_one_out"}
        torch.manual_seed(0)
        return BeliefNetworkExperiment(data, estimator, batch_size=8, seed=1, **{"layers": [3], **options})

    return make


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of an experiment's untrained model."""

    def save(experiment):
        content = {
            "state_dict": experiment.module.state_dict(),
            "hyper_parameters": dict(experiment.module.hparams),
            "model": "SigmoidBeliefNetwork",
            "config": {},
        }
        torch.save(content, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


def given(loader):
    return torch.cat([images for images, _ in loader])


class TestBinarization:
    def test_gray_training_images_are_resampled_each_epoch_and_reported_as_dynamic(self, make_experiment):
        experiment = make_experiment()
        loader = experiment.loaders.train(0, 1)
        first = given(loader)
        loader.set_epoch(1)
        assert is_binary(first)
        assert not torch.equal(first.sum(0), given(loader).sum(0))
        assert experiment.name == "noise, dynamic binarization"
        assert "noise, dynamic binarization" in experiment.describe(METRICS)

    def test_validation_images_are_binarized_once(self, make_experiment):
        one, other = (given(make_experiment().loaders.validation(0, 1)) for _ in range(2))
        assert is_binary(one)
        assert torch.equal(one, other)

    def test_black_and_white_images_are_unchanged_and_reported_as_static(self, make_experiment, gray):
        experiment = make_experiment(binary=True)
        images = given(experiment.loaders.train(0, 1))
        expected = 255 * (gray.images > 127).to(torch.uint8)
        assert torch.equal(images.unique(dim=0), expected.unique(dim=0))
        assert experiment.name == "noise"
        assert "noise, static binarization" in experiment.describe(METRICS)


class TestParts:
    def test_network_is_initialized_at_mean_of_training_images(self, make_experiment, gray):
        network = make_experiment().module.network
        torch.testing.assert_close(network.mean, (gray.images / 255).flatten(1).mean(0))
        torch.testing.assert_close(network.down[0][-1].bias.sigmoid(), network.mean)

    def test_module_gets_image_shape_and_options(self, make_experiment):
        options = make_experiment(num_particles=3, hidden=[7]).module.hparams
        assert options["image_shape"] == (1, 6, 5)
        assert (options["num_particles"], options["hidden"]) == (3, [7])

    def test_ranks_share_the_images(self, make_experiment):
        shares = [given(make_experiment(binary=True).loaders.train(rank, 2)) for rank in range(2)]
        assert [len(share) for share in shares] == [20, 20]
        assert len(torch.cat(shares).unique(dim=0)) == 40

    def test_validation_images_are_optional(self, make_experiment):
        assert make_experiment(validation=False).loaders.validation is None


class TestReport:
    def test_report_returns_both_bounds_and_saves_samples(self, make_experiment, checkpoint, tmp_path):
        experiment = make_experiment()
        figures = experiment.report(checkpoint(experiment), tmp_path)
        assert figures.keys() == METRICS.keys()
        assert figures["test_negative_bound_100"] < figures["test_negative_elbo"]
        assert 15 < figures["test_negative_elbo"] < 30  # 30 log 2 = 20.8 for images of pure noise
        assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")

    def test_report_is_reproducible(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_save_images", lambda *_: None)
        experiment = make_experiment()
        path = checkpoint(experiment)
        assert experiment.report(path, tmp_path) == experiment.report(path, tmp_path)

    def test_evaluate_adds_bound_with_more_samples(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_save_images", lambda *_: None)
        experiment = make_experiment()
        figures = experiment.evaluate(checkpoint(experiment), tmp_path)
        assert figures.keys() - METRICS.keys() == {"test_negative_bound_1000", "test_negative_bound_1000_std_error"}
        assert figures["test_negative_bound_1000"] < figures["test_negative_bound_100"] + 0.1


def test_describe_names_each_bound_and_its_number_of_samples(make_experiment):
    _, elbo, bound = make_experiment().describe(METRICS).splitlines()
    assert elbo == "  negative ELBO: 112.35 ± 0.30 nats  (mean over 10 samples)"
    assert bound == "  negative importance-weighted bound: 105.10 ± 0.20 nats  (S = 100 samples)"
