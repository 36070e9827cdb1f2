import pytest
import torch

from zoo.attention import HybridObjective, Rollout
from zoo.attention.ram.diagnostics import diagnostics
from zoo.gradients import ReinforceOutput


@pytest.fixture
def figures():
    """Diagnostics of two moves over four pictures, of which three were read rightly."""

    def figures(baseline, reward=(1.0, 0.0, 1.0, 1.0), locations=None):
        reward = torch.tensor([reward])
        baseline = torch.as_tensor(baseline)
        moves, advantage = len(baseline), reward - baseline
        out = ReinforceOutput(advantage, advantage.mean(), advantage, baseline)
        scalar = torch.tensor
        objective = HybridObjective(scalar(0.7), scalar(-0.2), scalar(0.1), scalar(2.0), reward, out)
        locations = torch.zeros(moves + 1, 1, 4, 2) if locations is None else locations
        rollout = Rollout(torch.zeros(moves + 1, 1, 4, 3), locations, locations[1:])
        return {name: value.item() for name, value in diagnostics(objective, rollout).items()}

    return figures


def test_they_are_what_their_names_say(figures):
    assert figures([[[0.5, 0.5, 0.5, 0.5]], [[1.0, 0.0, 1.0, 0.5]]]) == pytest.approx(
        {
            "train_error": 1 / 4,
            "cross_entropy": 0.7,
            "policy_loss": -0.2,
            "baseline_loss": 0.1,
            "reward_variance": 3 / 16,
            "advantage_mean": (3 * 0.5 - 0.5 + 0.5) / 8,
            "advantage_variance": (5 * 0.25) / 8 - (1.5 / 8) ** 2,
            "baseline_r2": 1 - ((5 * 0.25) / 8 - (1.5 / 8) ** 2) / (3 / 16),
            "clipped_locations": 0,
        }
    )


def test_a_baseline_that_knows_the_reward_explains_all_of_it(figures):
    assert figures([[[1.0, 0.0, 1.0, 1.0]]])["baseline_r2"] == 1


def test_a_constant_one_explains_nothing(figures):
    assert figures([[[0.3, 0.3, 0.3, 0.3]]])["baseline_r2"] == pytest.approx(0)


def test_there_is_nothing_to_explain_where_every_reward_is_the_same(figures):
    assert figures([[[0.3, 0.1, 0.3, 0.9]]], reward=(1.0, 1.0, 1.0, 1.0))["baseline_r2"] == 0


def test_a_location_counts_as_clipped_if_one_coordinate_is_but_not_if_it_is_the_first(figures):
    locations = torch.zeros(2, 1, 4, 2)
    locations[1, 0, :, :] = torch.tensor([[1.5, 0.0], [0.0, -1.1], [1.0, -1.0], [0.3, 0.9]])
    locations[0] = 7
    assert figures([[[0.5, 0.5, 0.5, 0.5]]], locations=locations)["clipped_locations"] == 0.5


def test_a_gaze_that_is_given_has_no_figures_of_its_own(figures):
    assert figures(torch.zeros(0, 1, 4)) == pytest.approx({"train_error": 1 / 4, "cross_entropy": 0.7})
