import math

import pytest
import torch

from zoo.attention import Recognition, RecurrentAttention
from zoo.attention.ram import evaluation
from zoo.attention.ram.evaluation import class_probabilities, mean_policy_error

# Chances of the first of two classes, for four pictures, by each of three draws.
CHANCES = torch.tensor([[0.9, 0.4, 0.2, 0.3], [0.9, 0.3, 0.95, 0.3], [0.001, 0.3, 0.1, 0.6]])
TRUTH = torch.tensor([0, 1, 1, 0])  # so that the draws are wrong on the last, the last two, and the first


class Scripted(RecurrentAttention):
    """Answers each call with the next row of chances, and notes how it was called."""

    def __init__(self):
        super().__init__((1, 9, 7), ("a", "b"), glimpse_size=3)
        self.calls = []

    def forward(self, images, seed=0, gaze=None):
        self.calls.append((len(images), seed, gaze))
        chances = CHANCES[(len(self.calls) - 1) % 3, : len(images)]
        probabilities = torch.stack([chances, 1 - chances], dim=-1)
        early = torch.full_like(probabilities, 0.5)
        return Recognition(
            probabilities.argmax(-1), torch.stack([early, probabilities]), torch.zeros(2, len(images), 2)
        )


@pytest.fixture
def model():
    return Scripted()


@pytest.fixture
def error(model):
    return mean_policy_error(model, torch.zeros(4, 1, 9, 7, dtype=torch.uint8), TRUTH, draws=3)


class TestMeanPolicyError:
    def test_is_the_mean_over_draws_of_one_walk_with_its_deviation(self, error):
        assert error.single == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)
        assert error.spread == pytest.approx(math.sqrt((2 * (1 / 12) ** 2 + (1 / 6) ** 2) / 2))

    def test_with_all_draws_the_probabilities_are_averaged_and_not_their_logarithms(self, error):
        right = TRUTH == 0
        assert ((CHANCES.mean(0) > 0.5) == right).sum() == 3
        assert ((CHANCES.log().mean(0) > (1 - CHANCES).log().mean(0)) == right).sum() == 2
        assert error.averaged == 1 / 4

    def test_its_interval_is_wilsons(self, error):
        n, p, z = 4, 1 / 4, 1.959964  # a third of four pictures is nearest to one
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        assert error.interval == pytest.approx((middle - half, middle + half), abs=1e-6)

    def test_the_probabilities_are_those_of_the_first_draw_after_the_last_glimpse(self, error):
        torch.testing.assert_close(error.probabilities[:, 0], CHANCES[0])

    def test_each_draw_has_its_own_first_glimpse_and_the_gaze_that_was_asked_for(self, model):
        mean_policy_error(model, torch.zeros(4, 1, 9, 7, dtype=torch.uint8), TRUTH, draws=3, gaze="centre")
        assert model.calls == [(4, 0, "centre"), (4, 1, "centre"), (4, 2, "centre")]

    def test_one_draw_has_no_spread(self, model):
        error = mean_policy_error(model, torch.zeros(4, 1, 9, 7, dtype=torch.uint8), TRUTH, draws=1)
        assert error.single == error.averaged == 1 / 4
        assert error.spread == 0

    def test_the_model_is_left_as_it_was(self, make_model, images, labels):
        model = make_model().train()
        before = {name: x.clone() for name, x in model.state_dict().items()}
        first, second = (mean_policy_error(model, images, labels, draws=2) for _ in range(2))
        assert first.single == second.single
        assert model.training
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


class TestBatches:
    def test_they_are_answered_in_order(self, model, monkeypatch):
        monkeypatch.setattr(evaluation, "BATCH", 3)
        probabilities = class_probabilities(model, torch.zeros(5, 1, 9, 7, dtype=torch.uint8), seed=0)
        torch.testing.assert_close(probabilities[:, 0], torch.cat([CHANCES[0, :3], CHANCES[1, :2]]))

    def test_no_two_of_them_share_a_seed(self, model, monkeypatch):
        monkeypatch.setattr(evaluation, "BATCH", 2)
        for seed in range(3):
            class_probabilities(model, torch.zeros(5, 1, 9, 7, dtype=torch.uint8), seed)
        assert [size for size, *_ in model.calls] == [2, 2, 1] * 3
        assert len({seed for _, seed, _ in model.calls}) == 9
