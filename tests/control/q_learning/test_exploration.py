import pytest
import torch
from scipy import stats
from torch import nn

from zoo.control.q_learning.exploration import (
    EXPLORATIONS,
    ExploringPolicy,
    boltzmann,
    epsilon_greedy,
    proportional,
)

VALUES = torch.tensor([[1.0, 4.0, 2.0], [-1.0, -4.0, -2.0], [0.0, 0.0, 0.0]])
# Parameters at which each exploration is uniform and nearly greedy.
EXTREMES = {"epsilon_greedy": (1.0, 0.0), "boltzmann": (1e9, 1e-3), "proportional": (0.0, 1e3)}


@pytest.mark.parametrize("name", EXPLORATIONS)
class TestExplorations:
    @pytest.mark.parametrize("parameter", [0.3, 1.0])
    def test_probabilities_are_ordered_like_the_values(self, name, parameter):
        probability = EXPLORATIONS[name](VALUES, parameter)
        torch.testing.assert_close(probability.sum(-1), torch.ones(3))
        assert (probability > 0).all()
        better = VALUES[:, :, None] > VALUES[:, None, :]
        assert (probability[:, :, None] >= probability[:, None, :])[better].all()
        torch.testing.assert_close(probability[2], torch.full((3,), 1 / 3))

    def test_parameter_moves_from_uniform_to_greedy(self, name):
        uniform, greedy = (EXPLORATIONS[name](VALUES, parameter) for parameter in EXTREMES[name])
        torch.testing.assert_close(uniform, torch.full((3, 3), 1 / 3), atol=1e-6, rtol=0)
        torch.testing.assert_close(greedy[:2], torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
        torch.testing.assert_close(greedy[2], torch.full((3,), 1 / 3))


def test_epsilon_is_the_probability_of_a_random_action():
    torch.testing.assert_close(epsilon_greedy(VALUES, 0.3)[0], torch.tensor([0.1, 0.8, 0.1]))


def test_boltzmann_equals_a_computation_by_hand():
    torch.testing.assert_close(boltzmann(VALUES, 2.0)[0], (VALUES[0] / 2).softmax(-1))


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 1e-30])
def test_boltzmann_is_greedy_at_low_temperature(temperature):
    expected = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(boltzmann(VALUES, temperature), expected)


class TestCheckExploration:
    @pytest.mark.parametrize(
        ("name", "parameter", "allowed"),
        [
            ("epsilon_greedy", 1.1, "between 0 and 1, got 1.1"),
            ("epsilon_greedy", -0.1, "between 0 and 1, got -0.1"),
            ("epsilon_greedy", float("nan"), "between 0 and 1, got nan"),
            ("boltzmann", -1.0, "0 or more, got -1"),
            ("proportional", -1.0, "0 or more, got -1"),
        ],
    )
    def test_parameter_outside_its_range_raises(self, name, parameter, allowed):
        for use in (ExploringPolicy.check_parameter, lambda *given: ExploringPolicy(nn.Linear(1, 3), 3, *given)):
            with pytest.raises(ValueError, match=f"of exploration={name} must be {allowed}"):
                use(name, parameter)

    @pytest.mark.parametrize(
        ("name", "parameter"), [("epsilon_greedy", 1.0), ("boltzmann", 1e9), ("proportional", 1e9), ("boltzmann", 0.0)]
    )
    def test_ends_of_the_range_are_valid(self, name, parameter):
        ExploringPolicy.check_parameter(name, parameter)


def test_proportional_by_hand_and_independent_of_units():
    weights = torch.tensor([0.05, 1.05, 1 / 3 + 0.05])
    torch.testing.assert_close(proportional(VALUES, 1.0)[0], weights / weights.sum())
    torch.testing.assert_close(proportional(VALUES, 2.0)[0], weights**2 / (weights**2).sum())
    torch.testing.assert_close(proportional(VALUES, 1.5), proportional(100 * VALUES - 7, 1.5))


class TestExploringPolicy:
    @pytest.fixture
    def policy(self):
        q = nn.Linear(1, 3, bias=False)
        q.weight.data[:, 0] = torch.tensor([1.0, 4.0, 2.0])
        return ExploringPolicy(q, num_actions=3, exploration="proportional", parameter=1.0)

    def test_samples_follow_the_probabilities(self, policy):
        noise = policy.noise(10_000, generator=torch.Generator().manual_seed(0))
        counts = policy.act(torch.ones(10_000, 1), noise).bincount(minlength=3)
        expected = policy.probabilities(torch.ones(1)).detach() * 10_000
        assert stats.chisquare(counts, expected.double() * 10_000 / expected.double().sum()).pvalue > 1e-6
        assert stats.chisquare(counts).pvalue < 1e-6

    @pytest.mark.parametrize("name", EXPLORATIONS)
    @pytest.mark.parametrize("flat", [True, False])
    def test_policy_without_noise_is_greedy_even_if_it_is_uniform(self, policy, name, flat):
        uniform, greedy = EXTREMES[name]
        made = ExploringPolicy(policy.q, 3, name, uniform if flat else greedy)
        assert made.act(torch.ones(5, 1), torch.zeros(5, 3)).tolist() == [1] * 5

    def test_policy_is_greedy_only_where_the_noise_is_zero(self, policy):
        noise = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
        assert policy.act(torch.ones(2, 1), noise).tolist() == [1, 0]

    def test_parameter_changes_the_policy_and_is_saved(self, policy):
        policy.parameter.fill_(0)
        torch.testing.assert_close(policy.probabilities(torch.ones(1)), torch.full((3,), 1 / 3))
        assert policy.state_dict()["parameter"] == 0

    def test_unknown_exploration_raises(self):
        with pytest.raises(ValueError, match="no exploration 'optimism'; choose one of epsilon_greedy"):
            ExploringPolicy(nn.Linear(1, 3), num_actions=3, exploration="optimism", parameter=1.0)
