import pytest
import torch

from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.attention.ram.experiment import _LocationPolicyMonitor as LocationPolicyMonitor
from zoo.data import ImageData, ImageSet

METRICS = {
    "test_error": 0.0123,
    "test_error_std": 0.001,
    "test_error_low": 0.0101,
    "test_error_high": 0.0152,
    "test_error_mc10": 0.0077,
}


@pytest.fixture
def make_experiment(images, labels):
    """An experiment on eight images that counts how often its test set is read."""

    def make(validation=True, **options):
        data_set = ImageSet(images, labels)
        reads = []

        def load_test():
            reads.append(1)
            return data_set

        data = ImageData(
            "insects", data_set, data_set if validation else None, load_test, ("ant", "bee", "cow"), (0.1,)
        )
        experiment = RecurrentAttentionExperiment(
            data, {"baseline": "learned"}, batch_size=3, seed=1, num_glimpses=2, patch_size=3, **options
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
    def test_model_is_built_from_the_data_and_the_options(self, make_experiment):
        experiment, _ = make_experiment(num_scales=2, location_range=2.5)
        options = experiment.module.hparams
        assert options["image_shape"] == (1, 9, 7)
        assert options["classes"] == ("ant", "bee", "cow")
        assert options["fill_value"] == (0.1,)
        assert (options["num_scales"], options["location_range"]) == (2, 2.5)

    def test_training_images_are_shuffled_and_divided_among_the_ranks(self, make_experiment, images):
        experiment, _ = make_experiment()
        shares = [torch.cat([part for part, _ in experiment.loaders.train(rank, 2)]) for rank in range(2)]
        together = torch.cat(shares)
        assert [len(share) for share in shares] == [4, 4]
        assert not torch.equal(together, images)
        assert torch.equal(together.unique(dim=0), images.unique(dim=0))

    def test_validation_images_are_in_order(self, make_experiment, images):
        experiment, _ = make_experiment()
        ((validation, _),) = experiment.loaders.validation(0, 1)
        assert torch.equal(validation, images)

    def test_validation_set_is_optional(self, make_experiment):
        assert make_experiment(validation=False)[0].loaders.validation is None

    def test_location_policy_is_monitored(self, make_experiment):
        assert [type(callback) for callback in make_experiment()[0].callbacks()] == [LocationPolicyMonitor]


class TestReport:
    def test_report_returns_metrics_and_saves_glimpses(self, make_experiment, checkpoint, tmp_path):
        experiment, _ = make_experiment()
        metrics = experiment.report(checkpoint(experiment), tmp_path)
        assert metrics.keys() == METRICS.keys()
        assert metrics["test_error_low"] <= metrics["test_error"] <= metrics["test_error_high"]
        for name, start in (("glimpses.png", b"\x89PNG"), ("glimpses.gif", b"GIF8")):
            assert (tmp_path / name).read_bytes().startswith(start)

    def test_test_set_is_read_once_by_the_report(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr("zoo.attention.ram.experiment._draw_glimpses", lambda *_: None)
        experiment, reads = make_experiment()
        path = checkpoint(experiment)
        assert len(reads) == 0
        experiment.report(path, tmp_path)
        assert len(reads) == 1

    def test_evaluation_adds_controls_and_mistakes(self, make_experiment, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr("zoo.attention.ram.experiment._draw_glimpses", lambda *_: None)
        experiment, _ = make_experiment()
        metrics = experiment.evaluate(checkpoint(experiment), tmp_path)
        assert metrics.keys() == {
            *METRICS,
            *(f"test_error_{policy}_locations" for policy in ("spiral", "random", "center")),
        }
        assert all(0 <= metric <= 1 for metric in metrics.values())
        assert (tmp_path / "misclassified.png").read_bytes().startswith(b"\x89PNG")


class TestDescription:
    def test_description_names_data_and_errors(self, make_experiment):
        description = make_experiment()[0].describe(METRICS)
        assert "test error on insects: 1.23 %" in description
        assert "one trajectory, mean policy; 95 % interval 1.01 % to 1.52 %" in description
        assert "0.77 % with the class probabilities of ten trajectories averaged" in description
        assert "of the same model" not in description

    def test_description_lists_controls_if_evaluated(self, make_experiment):
        controls = {"test_error_random_locations": 0.1, "test_error_center_locations": 0.4}
        description = make_experiment()[0].describe(METRICS | controls)
        assert "10.00 % with all glimpses of the same model at random locations" in description
        assert "40.00 % with all glimpses of the same model at the center" in description


@pytest.mark.parametrize(("options", "warned"), [({"patch_size": 8, "num_scales": 1}, True), ({}, False)])
def test_glimpses_that_cover_little_of_an_image_raise_a_warning(caplog, options, warned):
    images = ImageSet(torch.zeros(4, 1, 280, 200, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    data = ImageData("plain", images, images, lambda: images, ("a", "b"), (0.0,))
    RecurrentAttentionExperiment(data, {"baseline": "learned"}, batch_size=2, seed=1, **options)
    sentence = "6 glimpses of at most 8×8 pixels cover 0.69 % of a 280×200 image"
    assert any(sentence in message for message in caplog.messages) is warned
