import pytest
import torch

from zoo.data import ImageData, ImageSet, is_binary
from zoo.inference.sbn import experiment as module
from zoo.inference.sbn.experiment import BeliefNetworkExperiment

FIGURES = {
    "test_negative_elbo": 112.351,
    "test_negative_elbo_spread": 0.301,
    "validation_negative_elbo": 113.1,
    "validation_negative_elbo_spread": 0.3,
    "test_negative_bound_100": 105.1,
    "test_negative_bound_100_spread": 0.2,
}


@pytest.fixture
def grey():
    """Forty pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 6, 5), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(40) % 4)


@pytest.fixture
def make_experiment(grey):
    def make(binary=False, validation=True, **options):
        pictures = ImageSet(255 * (grey.images > 127).to(torch.uint8), grey.labels) if binary else grey
        data = ImageData("noise", pictures, pictures if validation else None, lambda: pictures, ("a",), (0.0,))
        estimator = {"baseline": "leave_one_out"}
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
    def test_grey_pictures_are_drawn_anew_each_epoch_and_it_is_said(self, make_experiment):
        experiment = make_experiment()
        loader = experiment.loaders.train(0, 1)
        first = given(loader)
        loader.set_epoch(1)
        assert is_binary(first)
        assert not torch.equal(first.sum(0), given(loader).sum(0))
        assert experiment.name == "noise, dynamic binarisation"
        assert "noise, dynamic binarisation" in experiment.describe(FIGURES)

    def test_those_of_validation_are_drawn_once(self, make_experiment):
        one, other = (given(make_experiment().loaders.validation(0, 1)) for _ in range(2))
        assert is_binary(one)
        assert torch.equal(one, other)

    def test_black_and_white_ones_stay_and_it_is_said(self, make_experiment, grey):
        experiment = make_experiment(binary=True)
        images = given(experiment.loaders.train(0, 1))
        expected = 255 * (grey.images > 127).to(torch.uint8)
        assert torch.equal(images.unique(dim=0), expected.unique(dim=0))
        assert experiment.name == "noise"
        assert "noise, static binarisation" in experiment.describe(FIGURES)


class TestParts:
    def test_the_network_begins_at_the_mean_of_the_training_pictures(self, make_experiment, grey):
        network = make_experiment().module.network
        torch.testing.assert_close(network.mean, (grey.images / 255).flatten(1).mean(0))
        torch.testing.assert_close(network.down[0][-1].bias.sigmoid(), network.mean)

    def test_it_fits_the_data_and_takes_the_other_options(self, make_experiment):
        options = make_experiment(particles=3, hidden=[7]).module.hparams
        assert options["image_shape"] == (1, 6, 5)
        assert (options["particles"], options["hidden"]) == (3, [7])

    def test_ranks_share_the_pictures(self, make_experiment):
        shares = [given(make_experiment(binary=True).loaders.train(rank, 2)) for rank in range(2)]
        assert [len(share) for share in shares] == [20, 20]
        assert len(torch.cat(shares).unique(dim=0)) == 40

    def test_there_may_be_no_validation_pictures(self, make_experiment):
        assert make_experiment(validation=False).loaders.validation is None


class TestReport:
    def test_measures_both_bounds_and_draws(self, make_experiment, checkpoint, tmp_path):
        experiment = make_experiment()
        figures = experiment.report(checkpoint(experiment), tmp_path)
        assert figures.keys() == FIGURES.keys()
        assert figures["test_negative_bound_100"] < figures["test_negative_elbo"]
        assert 15 < figures["test_negative_elbo"] < 30  # 30 log 2 = 20.8 for pictures of pure noise
        assert (tmp_path / "pictures.png").read_bytes().startswith(b"\x89PNG")

    def test_the_test_pictures_are_the_same_each_time(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "draw_pictures", lambda *_: None)
        experiment = make_experiment()
        path = checkpoint(experiment)
        assert experiment.report(path, tmp_path) == experiment.report(path, tmp_path)

    def test_an_evaluation_adds_the_bound_with_more_samples(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "draw_pictures", lambda *_: None)
        experiment = make_experiment()
        figures = experiment.evaluate(checkpoint(experiment), tmp_path)
        assert figures.keys() - FIGURES.keys() == {"test_negative_bound_1000", "test_negative_bound_1000_spread"}
        assert figures["test_negative_bound_1000"] < figures["test_negative_bound_100"] + 0.1


def test_each_figure_is_told_with_its_name_and_its_samples(make_experiment):
    _, elbo, bound = make_experiment().describe(FIGURES).splitlines()
    assert elbo == "  negative ELBO: 112.35 ± 0.30 nats  (mean over 10 samples)"
    assert bound == "  negative importance-weighted bound: 105.10 ± 0.20 nats  (S = 100 samples)"
