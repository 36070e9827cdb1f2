import pytest
import torch

from zoo.attention.ram.callbacks import LearningCheck
from zoo.attention.ram.experiment import RecognitionExperiment
from zoo.data import ImageData, ImageSet

FIGURES = {
    "test_error": 0.0123,
    "test_error_spread": 0.001,
    "test_error_low": 0.0101,
    "test_error_high": 0.0152,
    "test_error_mc10": 0.0077,
}


@pytest.fixture
def make_experiment(images, labels):
    """An experiment on eight pictures, whose test set notes how often it is read."""

    def make(validation=True, **options):
        pictures = ImageSet(images, labels)
        reads = []

        def load_test():
            reads.append(1)
            return pictures

        data = ImageData(
            "insects", pictures, pictures if validation else None, load_test, ("ant", "bee", "cow"), (0.1,)
        )
        experiment = RecognitionExperiment(
            data, {"baseline": "learned"}, batch_size=3, seed=1, glimpses=2, glimpse_size=3, **options
        )
        return experiment, reads

    return make


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of an experiment's untrained model."""

    def checkpoint(experiment):
        module = experiment.module
        state = {
            "state_dict": module.state_dict(),
            "hyper_parameters": dict(module.hparams),
            "model": "RecurrentAttention",
            "config": {},
        }
        torch.save(state, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return checkpoint


class TestParts:
    def test_the_model_fits_the_data_and_takes_the_other_options(self, make_experiment):
        experiment, _ = make_experiment(scales=2, span=2.5)
        options = experiment.module.hparams
        assert options["image_shape"] == (1, 9, 7)
        assert options["classes"] == ("ant", "bee", "cow")
        assert options["background"] == (0.1,)
        assert (options["scales"], options["span"]) == (2, 2.5)

    def test_training_pictures_are_shuffled_and_shared_by_the_ranks(self, make_experiment, images):
        experiment, _ = make_experiment()
        shares = [torch.cat([pictures for pictures, _ in experiment.loaders.train(rank, 2)]) for rank in range(2)]
        given = torch.cat(shares)
        assert [len(share) for share in shares] == [4, 4]
        assert not torch.equal(given, images)
        assert torch.equal(given.unique(dim=0), images.unique(dim=0))

    def test_validation_pictures_come_in_order(self, make_experiment, images):
        experiment, _ = make_experiment()
        ((pictures, _),) = experiment.loaders.validation(0, 1)
        assert torch.equal(pictures, images)

    def test_there_may_be_none(self, make_experiment):
        assert make_experiment(validation=False)[0].loaders.validation is None

    def test_learning_is_watched(self, make_experiment):
        assert [type(callback) for callback in make_experiment()[0].callbacks()] == [LearningCheck]


class TestReport:
    def test_measures_and_draws_what_the_model_sees(self, make_experiment, checkpoint, tmp_path):
        experiment, _ = make_experiment()
        figures = experiment.report(checkpoint(experiment), tmp_path)
        assert figures.keys() == FIGURES.keys()
        assert figures["test_error_low"] <= figures["test_error"] <= figures["test_error_high"]
        for name, start in (("glimpses.png", b"\x89PNG"), ("glimpses.gif", b"GIF8")):
            assert (tmp_path / name).read_bytes().startswith(start)

    def test_the_test_pictures_are_read_once_and_only_then(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr("zoo.attention.ram.experiment.draw_glimpses", lambda *_: None)
        experiment, reads = make_experiment()
        path = checkpoint(experiment)
        assert len(reads) == 0
        experiment.report(path, tmp_path)
        assert len(reads) == 1

    def test_an_evaluation_adds_controls_and_mistakes(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr("zoo.attention.ram.experiment.draw_glimpses", lambda *_: None)
        experiment, _ = make_experiment()
        figures = experiment.evaluate(checkpoint(experiment), tmp_path)
        assert figures.keys() == {*FIGURES, *(f"test_error_{gaze}_gaze" for gaze in ("spiral", "random", "centre"))}
        assert all(0 <= figure <= 1 for figure in figures.values())
        assert (tmp_path / "mistakes.png").read_bytes().startswith(b"\x89PNG")


class TestDescription:
    def test_names_the_data_and_says_what_the_errors_are_of(self, make_experiment):
        said = make_experiment()[0].describe(FIGURES)
        assert "test error on insects: 1.23%" in said
        assert "one walk, mean policy; 95 % interval 1.01% to 1.52%" in said
        assert "0.77% with the class probabilities of ten walks averaged" in said
        assert "the same model is given" not in said

    def test_tells_of_the_controls_if_there_were_any(self, make_experiment):
        controls = {"test_error_random_gaze": 0.1, "test_error_centre_gaze": 0.4}
        said = make_experiment()[0].describe(FIGURES | controls)
        assert "10.00% if the same model is given random glimpses" in said
        assert "40.00% if the same model is given every glimpse at the centre" in said


@pytest.mark.parametrize(("options", "warned"), [({"glimpse_size": 8, "scales": 1}, True), ({}, False)])
def test_glimpses_that_see_next_to_nothing_of_an_image_are_warned_of(caplog, options, warned):
    images = ImageSet(torch.zeros(4, 1, 280, 200, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    data = ImageData("plain", images, images, lambda: images, ("a", "b"), (0.0,))
    RecognitionExperiment(data, {"baseline": "learned"}, batch_size=2, seed=1, **options)
    sentence = "6 glimpses of at most 8×8 pixels see 0.69% of a 280×200 image"
    assert any(sentence in message for message in caplog.messages) is warned
