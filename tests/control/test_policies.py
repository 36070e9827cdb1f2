import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from scipy import stats
from torch import nn
from torch.distributions import Categorical, Normal

from zoo.control.policies import CategoricalPolicy, GaussianPolicy, action_kind, make_policy

RARE = 1e-6  # how often a statistical test may fail though all is right
BOUNDS = [(-2.0, 2.0), (0.0, 10.0), (float("-inf"), float("inf")), (-3e38, 3e38)]


@pytest.fixture
def categorical():
    """Over three actions, by the logits that are observed."""
    torch.manual_seed(0)
    net = nn.Linear(3, 3, bias=False)
    net.weight.data.copy_(torch.eye(3))
    return CategoricalPolicy(net, actions=3)


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    return GaussianPolicy(nn.Linear(3, 4), BOUNDS)


class TestCategorical:
    def test_draws_from_the_softmax(self, categorical):
        logits = torch.tensor([0.5, -1.0, 2.0])
        noise = categorical.noise(20_000, generator=torch.Generator().manual_seed(1))
        counts = categorical.act(logits.expand(20_000, 3), noise).bincount(minlength=3)
        assert stats.chisquare(counts, logits.double().softmax(0) * 20_000).pvalue > RARE
        off = torch.tensor([0.7, -1.0, 2.0]).double().softmax(0)
        assert stats.chisquare(counts, off * 20_000).pvalue < RARE

    def test_probabilities_sum_to_one(self, categorical):
        observation = torch.randn(7, 1, 3).expand(7, 3, 3)
        log_prob, _ = categorical.log_prob_and_entropy(observation, torch.arange(3).expand(7, 3))
        torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(7))

    def test_log_probabilities_and_entropy_are_those_of_the_distribution(self, categorical):
        observation, action = torch.randn(5, 4, 3), torch.randint(3, (5, 4))
        log_prob, entropy = categorical.log_prob_and_entropy(observation, action)
        expected = Categorical(logits=observation)
        torch.testing.assert_close(log_prob, expected.log_prob(action))
        torch.testing.assert_close(entropy, expected.entropy())

    def test_is_greedy_without_noise(self, categorical):
        assert categorical.act(torch.tensor([[1.0, 5.0, 2.0]]), torch.zeros(1, 3)).tolist() == [1]


class TestGaussian:
    def test_draws_from_the_normal_distribution_it_speaks_of(self, gaussian):
        observation = torch.randn(3)
        noise = gaussian.noise(5_000, generator=torch.Generator().manual_seed(2))
        actions = gaussian.act(observation.expand(5_000, 3), noise)
        mean, std = gaussian.mean(gaussian.net(observation)).detach(), gaussian.reach * gaussian.log_std.detach().exp()
        standard = ((actions.detach() - mean) / std).double()
        assert all(stats.kstest(column, "norm").pvalue > RARE for column in standard.T.numpy())
        assert stats.kstest(standard[:, 0].numpy() * 1.2, "norm").pvalue < RARE
        log_prob, entropy = gaussian.log_prob_and_entropy(observation.expand(5_000, 3), actions)
        torch.testing.assert_close(log_prob, Normal(mean, std).log_prob(actions).sum(-1))
        torch.testing.assert_close(entropy, Normal(mean, std).entropy().sum().expand(5_000))

    def test_measures_in_units_of_the_bounds(self, gaussian):
        """A network's 0 is the middle, ±1 are the bounds; where there are none, it is the action itself."""
        for parameter in gaussian.net.parameters():
            parameter.data.zero_()
        assert gaussian.mean(gaussian.net(torch.zeros(3))).tolist() == [0, 5, 0, 0]
        gaussian.net.bias.data.fill_(1)
        assert gaussian.mean(gaussian.net(torch.zeros(3))).tolist() == [2, 10, 1, 1]
        gaussian.log_std.data.zero_()
        assert gaussian.act(torch.zeros(1, 3), torch.ones(1, 4)).tolist() == [[4, 15, 2, 2]]

    def test_is_greedy_without_noise(self, gaussian):
        observation = torch.randn(2, 3)
        action = gaussian.act(observation, torch.zeros(2, 4))
        torch.testing.assert_close(action, gaussian.mean(gaussian.net(observation)))
        best, _ = gaussian.log_prob_and_entropy(observation, action)
        assert (best > gaussian.log_prob_and_entropy(observation, action + 0.1)[0]).all()


class TestMakingOne:
    @pytest.mark.parametrize(
        ("space", "kind", "policy"),
        [
            (Discrete(3, start=2), 3, CategoricalPolicy),
            (Box(-2.0, 2.0, (2,)), [(-2.0, 2.0)] * 2, GaussianPolicy),
        ],
        ids=["choices", "coordinates"],
    )
    def test_that_fits_the_actions(self, space, kind, policy):
        assert action_kind(space) == kind
        assert type(make_policy((4,), action_kind(space), (8,))) is policy

    @pytest.mark.parametrize(
        "space",
        [MultiDiscrete([2, 3]), Box(-1.0, 1.0, (2, 2)), Box(0, 255, (3,), "uint8"), Dict({"a": Discrete(2)})],
        ids=str,
    )
    def test_is_refused_for_actions_that_none_fits(self, space):
        with pytest.raises(ValueError, match=r"no policy fits the action space .*must be Discrete, or a Box"):
            action_kind(space)

    def test_begins_near_uniform(self):
        torch.manual_seed(0)
        policy = make_policy((4,), 3, (64, 64))
        _, entropy = policy.log_prob_and_entropy(torch.randn(50, 4), torch.zeros(50, dtype=torch.int64))
        assert entropy.min() > 0.999 * torch.tensor(3.0).log()

    def test_acts_in_training_as_in_evaluation(self):
        """No dropout and no normalisation over the batch: the policy that is judged is the one that acted."""
        torch.manual_seed(0)
        policy, observation = make_policy((4,), 2, (8, 8)), torch.randn(6, 4)
        noise = policy.noise(6)
        logits, action = policy.net(observation), policy.act(observation, noise)
        policy.eval()
        assert torch.equal(policy.net(observation), logits)
        assert torch.equal(policy.act(observation, noise), action)
        assert {type(part) for part in policy.net} == {type(policy.net[0]), nn.Linear, nn.Tanh}
