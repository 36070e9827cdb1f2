import json

import pytest
import torch

from zoo.attention.captioning._batches import CaptionExamples
from zoo.attention.captioning._evaluation import hit_rate, negative_log_likelihood
from zoo.attention.captioning.cider import CiderD
from zoo.attention.captioning.experiment import CaptioningExperiment
from zoo.attention.captioning.meteor import MeteorScore
from zoo.attention.captioning.module import Captioner
from zoo.attention.captioning.objective import word_mask
from zoo.cli._commands import evaluate, make_experiment, train
from zoo.data import load_captioned_scenes
from zoo.training import TrainingInterruptedError, read_checkpoint, read_status

SMALL = {"hidden_size": 8, "embedding_size": 8, "value_size": 8, "query_size": 4, "max_length": 6, "beam_size": 2}
SCST = ["model.objective=scst", "model.expected_fraction=0", "model.lr=1e-3"]


@pytest.fixture(scope="module")
def data():
    return load_captioned_scenes(num_train=32, num_validation=8, num_test=12)


@pytest.fixture
def experiment(data):
    torch.manual_seed(0)
    return CaptioningExperiment(data, {}, batch_size=8, seed=1, **SMALL)


@pytest.fixture
def scst_config(tiny, composed, finished):
    start = finished("captioning") / "checkpoints" / "last.ckpt"
    return composed(tiny("captioning", *SCST, f"init_from={start}"))


class TestEvaluation:
    def test_likelihood_is_the_mean_of_the_probabilities_of_samples(self, experiment, data):
        model, examples = experiment.module.eval(), experiment._examples(data.validation, per_image=False)
        found = negative_log_likelihood(model, examples, num_samples=3)
        by_length = examples.lengths.argsort(stable=True)
        batch = examples[by_length]
        noise = torch.rand(*batch.words.shape[:2], 3, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            run = model.decoder.decode(model.annotate(batch.inputs), batch.words, noise)
        each = run.word_log_prob.where(word_mask(batch.words), 0.0).sum(0).exp()
        torch.testing.assert_close(found[by_length], -each.mean(-1).log())

    def test_cells_of_another_image_are_worse_for_a_model_that_attends(self, experiment, data):
        model, examples = experiment.module.eval(), experiment._examples(data.validation, per_image=False)
        own = negative_log_likelihood(model, examples, num_samples=2)
        other = negative_log_likelihood(model, examples, num_samples=2, of_next_image=True)
        assert not torch.equal(own, other)

    def test_cells_of_another_image_are_never_those_of_the_same(self, experiment, data, monkeypatch):
        model, words = experiment.module.eval(), experiment._encode(data.validation)
        examples = CaptionExamples(data.validation.images, [captions * 3 for captions in words])  # three of each image
        annotated = []
        annotate = model.annotate

        def record(inputs):
            annotated.append(inputs)
            return annotate(inputs)

        monkeypatch.setattr(model, "annotate", record)
        negative_log_likelihood(model, examples, num_samples=2, of_next_image=True)
        own, other = annotated
        assert len(own) == 24
        assert (own != other).flatten(1).any(1).all()

    def test_hit_rate_is_one_if_every_cell_is_that_of_the_object(self, experiment, data, monkeypatch):
        model, test = experiment.module.eval(), data.load_test()
        examples = experiment._examples(test, per_image=True)
        boxes = [captions[0] for captions in test.boxes]
        decode = model.decoder.decode

        def on_the_object(annotations, words, *args, **options):
            run = decode(annotations, words, *args, **options)
            cells = torch.zeros_like(run.cells)
            for image, of_caption in enumerate(boxes):
                for t, box in enumerate(of_caption):
                    if box is not None:
                        cells[t, image, 0] = box[0] // 12 * 7 + box[1] // 12
            return run._replace(cells=cells)

        assert hit_rate(model, test, examples) < 0.5
        monkeypatch.setattr(model.decoder, "decode", on_the_object)
        assert hit_rate(model, test, examples) == 1.0


@pytest.mark.usefixtures("without_type_checks")
class TestRun:
    def test_run_leaves_captions_and_figures(self, tiny, composed, tmp_path):
        folder = tmp_path
        metrics = train(composed(tiny("captioning", "trainer.max_epochs=1")), folder, "command").metrics
        assert {"test_bleu4", "test_cider", "test_nll", "test_exact", "test_hit_rate"} <= metrics.keys()
        captions = json.loads((folder / "test_captions.json").read_text())["captions"]
        assert len(captions) == 16
        assert {"caption", "cider", "nll", "reference_words"} == captions[0].keys()
        total = sum(row["nll"] for row in captions) / sum(row["reference_words"] for row in captions)
        assert total == pytest.approx(metrics["test_nll"], rel=1e-5)
        assert (folder / "captions.png").exists()
        assert (folder / "best_and_worst.png").exists()

    def test_evaluation_has_other_choices_of_cells(self, finished, tmp_path):
        result = evaluate(finished("captioning") / "checkpoints" / "last.ckpt", tmp_path)
        assert {
            "test_bleu4_expected_cells",
            "test_cider_sample_cells",
            "test_nll_random_cells",
        } <= result.metrics.keys()
        assert "nats per word with the cells sampled for another image" in result.summary
        status = read_status(finished("captioning") / "status.json")["metrics"]
        assert result.metrics["test_bleu4_argmax_cells"] == status["test_bleu4"]

    def test_evaluation_has_scores_of_greedy_captions(self, finished, tmp_path):
        checkpoint = finished("captioning") / "checkpoints" / "last.ckpt"
        metrics = evaluate(checkpoint, tmp_path).metrics
        data = load_captioned_scenes(num_train=16, num_validation=16, num_test=16)
        model, test = Captioner.load(checkpoint), data.load_test()
        captions = model(test.images, beam_size=1).words
        assert metrics["test_cider_greedy"] == pytest.approx(CiderD(test.captions).scores(captions).mean().item())

    @pytest.mark.parametrize("score", [0.25, None])
    def test_evaluation_has_meteor_or_says_why_not(self, score, finished, tmp_path, monkeypatch, caplog):
        answer = MeteorScore(score, None if score else "METEOR needs Java")
        monkeypatch.setattr("zoo.attention.captioning.experiment.corpus_meteor", lambda *captions: answer)
        result = evaluate(finished("captioning") / "checkpoints" / "last.ckpt", tmp_path)
        assert result.metrics.get("test_meteor") == score
        assert ("METEOR 25.0" in result.summary) == (score is not None)
        assert ("METEOR is left out: METEOR needs Java" in caplog.text) == (score is None)

    def test_loaded_model_captions_images(self, finished, data):
        captions = Captioner.load(finished("captioning") / "checkpoints" / "last.ckpt")(data.validation.images[:3])
        assert len(captions.words) == 3


@pytest.mark.usefixtures("no_pictures", "without_type_checks")
class TestSequenceTraining:
    def test_training_without_initial_weights_is_refused(self, tiny, composed, tmp_path):
        with pytest.raises(ValueError, match="starts from the weights of another one: set init_from="):
            train(composed(tiny("captioning", *SCST)), tmp_path, "command")

    def test_training_may_have_another_baseline_than_the_one_it_starts_from(self, scst_config, tmp_path):
        scst_config["estimator"]["baseline"] = "moving_average"
        train(scst_config, tmp_path, "command")
        assert "reinforce.baseline.mean.total" in read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]

    def test_training_changes_the_weights_it_started_from(self, scst_config, finished, tmp_path):
        train(scst_config, tmp_path, "command")
        before = read_checkpoint(finished("captioning") / "checkpoints" / "last.ckpt")["state_dict"]
        after = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
        assert all(not torch.equal(before[name], after[name]) for name in before)

    def test_training_stopped_within_an_epoch_is_resumed_exactly(
        self, scst_config, tmp_path, at, monkeypatch, differences
    ):
        def stop(module):
            raise KeyboardInterrupt

        train(scst_config, tmp_path / "whole", "command")
        monkeypatch.setattr(CaptioningExperiment, "callbacks", lambda self: [at(3, stop)])
        with pytest.raises(TrainingInterruptedError):
            train(scst_config, tmp_path / "parts", "command")
        monkeypatch.undo()
        train(scst_config, tmp_path / "parts", "command")
        ends = [read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts")]
        assert differences(*(end["state_dict"] for end in ends)) == []
        assert differences(*(end["optimizer_states"] for end in ends)) == []

    @pytest.mark.parametrize(("name", "highest"), [("cider", 10), ("bleu4", 1)])
    def test_caption_equal_to_a_reference_has_the_highest_reward(self, scst_config, name, highest):
        scst_config["model"]["reward"] = name
        experiment = make_experiment(scst_config)
        captions = experiment._encode(experiment.data.train)
        words = torch.zeros(20, 2, 2, dtype=torch.long)
        for image in range(2):
            own, other = captions[image][0], captions[1 - image][0]
            words[: len(own), image, 0] = torch.tensor(own)
            words[: len(other), image, 1] = torch.tensor(other)
        reward = experiment.module.reward_function(torch.tensor([0, 1]), words)
        assert reward.shape == (2, 2)
        assert (reward[:, 0] > 0.999 * highest).all()
        assert (reward[:, 1] < 0.9 * highest).all()
