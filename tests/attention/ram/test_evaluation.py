import math

import pytest
import torch

from zoo.attention import Prediction, RecurrentAttention
from zoo.attention.ram import _evaluation as evaluation
from zoo.attention.ram._evaluation import class_probabilities, error_rates
from zoo.data import ImageSet

# Probability of the first of two classes, for four images, in each of three samples.
PROBABILITIES = torch.tensor([[0.9, 0.4, 0.2, 0.3], [0.9, 0.3, 0.95, 0.3], [0.001, 0.3, 0.1, 0.6]])
TRUTH = torch.tensor([0, 1, 1, 0])  # so that the samples are wrong on the last, the last two, and the first
TEST = ImageSet(torch.zeros(4, 1, 9, 7, dtype=torch.uint8), TRUTH)


class ScriptedModel(RecurrentAttention):
    """Returns the next row of probabilities at each call, and records its arguments."""

    def __init__(self):
        super().__init__((1, 9, 7), ("a", "b"), patch_size=3)
        self.calls = []

    def forward(self, images, seed=0, location_policy=None):
        self.calls.append((len(images), seed, location_policy))
        probability = PROBABILITIES[(len(self.calls) - 1) % 3, : len(images)]
        probabilities = torch.stack([probability, 1 - probability], dim=-1)
        early = torch.full_like(probabilities, 0.5)
        return Prediction(probabilities.argmax(-1), torch.stack([early, probabilities]), torch.zeros(2, len(images), 2))


@pytest.fixture
def model():
    return ScriptedModel()


@pytest.fixture
def rates(model):
    return error_rates(model, TEST, num_samples=3)


class TestErrorRates:
    def test_mean_and_std_are_over_samples_of_one_trajectory(self, rates):
        assert rates["test_error"] == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)
        assert rates["test_error_std"] == pytest.approx(math.sqrt((2 * (1 / 12) ** 2 + (1 / 6) ** 2) / 2))

    def test_ensemble_averages_probabilities_and_not_log_probabilities(self, rates):
        right = TRUTH == 0
        assert ((PROBABILITIES.mean(0) > 0.5) == right).sum() == 3
        assert ((PROBABILITIES.log().mean(0) > (1 - PROBABILITIES).log().mean(0)) == right).sum() == 2
        assert rates["test_error_mc10"] == 1 / 4

    def test_interval_is_the_wilson_interval(self, rates):
        n, p, z = 4, 1 / 4, 1.959964  # a third of four images is nearest to one
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        assert (rates["test_error_low"], rates["test_error_high"]) == pytest.approx(
            (middle - half, middle + half), abs=1e-6
        )

    def test_class_probabilities_are_those_after_the_last_glimpse(self, model):
        torch.testing.assert_close(class_probabilities(model, TEST.images, seed=0)[:, 0], PROBABILITIES[0])

    def test_each_sample_has_its_own_seed_and_the_given_location_policy(self, model):
        error_rates(model, TEST, num_samples=3, location_policy="center")
        assert model.calls == [(4, 0, "center"), (4, 1, "center"), (4, 2, "center")]

    def test_std_of_a_single_sample_is_zero(self, model):
        rates = error_rates(model, TEST, num_samples=1)
        assert rates["test_error"] == rates["test_error_mc10"] == 1 / 4
        assert rates["test_error_std"] == 0

    def test_model_is_unchanged(self, make_model, images, labels):
        model = make_model().train()
        before = {name: x.clone() for name, x in model.state_dict().items()}
        first, second = (error_rates(model, ImageSet(images, labels), num_samples=2) for _ in range(2))
        assert first == second
        assert model.training
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


class TestBatches:
    def test_batches_are_concatenated_in_order(self, model, monkeypatch):
        monkeypatch.setattr(evaluation, "BATCH_SIZE", 3)
        probabilities = class_probabilities(model, torch.zeros(5, 1, 9, 7, dtype=torch.uint8), seed=0)
        torch.testing.assert_close(probabilities[:, 0], torch.cat([PROBABILITIES[0, :3], PROBABILITIES[1, :2]]))

    def test_no_two_batches_share_a_seed(self, model, monkeypatch):
        monkeypatch.setattr(evaluation, "BATCH_SIZE", 2)
        for seed in range(3):
            class_probabilities(model, torch.zeros(5, 1, 9, 7, dtype=torch.uint8), seed)
        assert [size for size, *_ in model.calls] == [2, 2, 1] * 3
        assert len({seed for _, seed, _ in model.calls}) == 9
