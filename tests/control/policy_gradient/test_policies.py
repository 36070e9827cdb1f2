import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text
from scipy import stats
from torch import nn
from torch.distributions import Categorical, Normal

from zoo.control.policy_gradient.policies import (
    CategoricalPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    action_spec,
    make_policy,
)

ALPHA = 1e-6  # false-alarm rate of a statistical test
BOUNDS = [(-2.0, 2.0), (0.0, 10.0), (float("-inf"), float("inf")), (-3e38, 3e38)]


@pytest.fixture
def categorical():
    """Policy over three actions whose logits are the observation."""
    torch.manual_seed(0)
    net = nn.Linear(3, 3, bias=False)
    net.weight.data.copy_(torch.eye(3))
    return CategoricalPolicy(net, num_actions=3)


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    return GaussianPolicy(nn.Linear(3, 4), BOUNDS)


class TestCategoricalPolicy:
    def test_categorical_samples_follow_the_softmax(self, categorical):
        logits = torch.tensor([0.5, -1.0, 2.0])
        noise = categorical.noise(20_000, generator=torch.Generator().manual_seed(1))
        counts = categorical.act(logits.expand(20_000, 3), noise).bincount(minlength=3)
        assert stats.chisquare(counts, logits.double().softmax(0) * 20_000).pvalue > ALPHA
        off = torch.tensor([0.7, -1.0, 2.0]).double().softmax(0)
        assert stats.chisquare(counts, off * 20_000).pvalue < ALPHA

    def test_categorical_probabilities_sum_to_one(self, categorical):
        observation = torch.randn(7, 1, 3).expand(7, 3, 3)
        log_prob, _ = categorical.log_prob_and_entropy(observation, torch.arange(3).expand(7, 3))
        torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(7))

    def test_categorical_log_prob_and_entropy_equal_those_of_the_distribution(self, categorical):
        observation, action = torch.randn(5, 4, 3), torch.randint(3, (5, 4))
        log_prob, entropy = categorical.log_prob_and_entropy(observation, action)
        expected = Categorical(logits=observation)
        torch.testing.assert_close(log_prob, expected.log_prob(action))
        torch.testing.assert_close(entropy, expected.entropy())

    def test_categorical_policy_is_greedy_without_noise(self, categorical):
        assert categorical.act(torch.tensor([[1.0, 5.0, 2.0]]), torch.zeros(1, 3)).tolist() == [1]


class TestGaussianPolicy:
    def test_gaussian_samples_log_prob_and_entropy_agree_with_the_normal_distribution(self, gaussian):
        observation = torch.randn(3)
        noise = gaussian.noise(5_000, generator=torch.Generator().manual_seed(2))
        actions = gaussian.act(observation.expand(5_000, 3), noise)
        mean, std = (
            gaussian.mean(gaussian.net(observation)).detach(),
            gaussian.action_scale * gaussian.log_std.detach().exp(),
        )
        standard = ((actions.detach() - mean) / std).double()
        assert all(stats.kstest(column, "norm").pvalue > ALPHA for column in standard.T.numpy())
        assert stats.kstest(standard[:, 0].numpy() * 1.2, "norm").pvalue < ALPHA
        log_prob, entropy = gaussian.log_prob_and_entropy(observation.expand(5_000, 3), actions)
        torch.testing.assert_close(log_prob, Normal(mean, std).log_prob(actions).sum(-1))
        torch.testing.assert_close(entropy, Normal(mean, std).entropy().sum().expand(5_000))

    def test_gaussian_network_output_is_in_units_of_the_bounds(self, gaussian):
        """Output 0 is the center and ±1 are the bounds; without bounds it is the action itself."""
        for parameter in gaussian.net.parameters():
            parameter.data.zero_()
        assert gaussian.mean(gaussian.net(torch.zeros(3))).tolist() == [0, 5, 0, 0]
        gaussian.net.bias.data.fill_(1)
        assert gaussian.mean(gaussian.net(torch.zeros(3))).tolist() == [2, 10, 1, 1]
        gaussian.log_std.data.zero_()
        assert gaussian.act(torch.zeros(1, 3), torch.ones(1, 4)).tolist() == [[4, 15, 2, 2]]

    def test_gaussian_policy_is_greedy_without_noise(self, gaussian):
        observation = torch.randn(2, 3)
        action = gaussian.act(observation, torch.zeros(2, 4))
        torch.testing.assert_close(action, gaussian.mean(gaussian.net(observation)))
        best, _ = gaussian.log_prob_and_entropy(observation, action)
        assert (best > gaussian.log_prob_and_entropy(observation, action + 0.1)[0]).all()

    @pytest.mark.parametrize(
        ("bounds", "bias", "scale"),
        [
            ((-1e7, 1e7), 0, 1e7),
            ((0.0, 3e6), 1.5e6, 1.5e6),
            ((0.0, float("inf")), 1, 1),
            ((float("-inf"), 3.0), 2, 1),
            ((float("-inf"), float("inf")), 0, 1),
            ((-3.4e38, 3.4e38), 0, 1),
        ],
        ids=str,
    )
    def test_gaussian_policy_handles_bounds_of_any_size(self, bounds, bias, scale):
        policy = GaussianPolicy(nn.Linear(3, 1), [bounds])
        assert (policy.action_bias.item(), policy.action_scale.item()) == (bias, scale)


class TestMultiCategoricalPolicy:
    @pytest.fixture
    def several(self):
        torch.manual_seed(0)
        return MultiCategoricalPolicy(nn.Linear(3, 5), nvec=[2, 3])

    def test_multi_categorical_probabilities_sum_to_one_and_give_the_entropy(self, several):
        observation = torch.randn(3)
        combinations = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        log_prob, entropy = several.log_prob_and_entropy(observation.expand(6, 3), combinations)
        torch.testing.assert_close(log_prob.exp().sum(), torch.tensor(1.0))
        torch.testing.assert_close(entropy, -(log_prob.exp() * log_prob).sum().expand(6))
        parts = [Categorical(logits=logits) for logits in several.net(observation).split([2, 3])]
        torch.testing.assert_close(
            log_prob, sum(part.log_prob(c) for part, c in zip(parts, combinations.T, strict=True))
        )

    def test_multi_categorical_samples_follow_the_probabilities(self, several):
        """Chi-squared test with a false-alarm rate of one in a million."""
        observation, n = torch.randn(3).expand(20_000, 3), 20_000
        actions = several.act(observation, several.noise(n, generator=torch.Generator().manual_seed(1)))
        combinations = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        log_prob, _ = several.log_prob_and_entropy(observation[:6], combinations)
        counts = (actions @ torch.tensor([3, 1])).bincount(minlength=6)
        expected = log_prob.detach().double().softmax(0) * n
        assert stats.chisquare(counts, expected).pvalue > ALPHA
        assert stats.chisquare(counts, expected.roll(1)).pvalue < ALPHA

    def test_multi_categorical_policy_is_greedy_without_noise(self, several):
        observation = torch.randn(4, 3)
        logits = several.net(observation)
        expected = torch.stack([logits[:, :2].argmax(-1), logits[:, 2:].argmax(-1)], -1)
        assert torch.equal(several.act(observation, torch.zeros(4, 5)), expected)


class TestMakePolicy:
    @pytest.mark.parametrize(
        ("space", "kind", "policy"),
        [
            (Discrete(3, start=2), 3, CategoricalPolicy),
            (Box(-2.0, 2.0, (2,)), [(-2.0, 2.0)] * 2, GaussianPolicy),
            (Box(-2.0, 2.0, (2, 1)), [(-2.0, 2.0)] * 2, GaussianPolicy),
            (Box(0, 255, (3,), "uint8"), [(-0.5, 255.5)] * 3, GaussianPolicy),
            (MultiDiscrete([[2], [3]]), [2, 3], MultiCategoricalPolicy),
            (MultiBinary(3), [2, 2, 2], MultiCategoricalPolicy),
        ],
        ids=["choices", "coordinates", "a matrix", "integers", "several choices", "bits"],
    )
    def test_policy_fits_the_action_space(self, space, kind, policy):
        assert action_spec(space) == kind
        assert type(make_policy((4,), action_spec(space), (8,))) is policy

    @pytest.mark.parametrize("space", [Dict({"a": Discrete(2)}), Text(3), Box(0, 1, (0,))], ids=str)
    def test_unsupported_action_space_raises(self, space):
        with pytest.raises(
            ValueError, match=r"no policy supports the action space .*must be Discrete, MultiDiscrete, "
        ):
            action_spec(space)

    def test_policy_starts_near_uniform(self):
        torch.manual_seed(0)
        policy = make_policy((4,), 3, (64, 64))
        _, entropy = policy.log_prob_and_entropy(torch.randn(50, 4), torch.zeros(50, dtype=torch.int64))
        assert entropy.min() > 0.999 * torch.tensor(3.0).log()

    def test_policy_acts_alike_in_train_and_eval_mode(self):
        """No dropout or batch normalization: the policy that is updated is the one that acted."""
        torch.manual_seed(0)
        policy, observation = make_policy((4,), 2, (8, 8)), torch.randn(6, 4)
        noise = policy.noise(6)
        logits, action = policy.net(observation), policy.act(observation, noise)
        policy.eval()
        assert torch.equal(policy.net(observation), logits)
        assert torch.equal(policy.act(observation, noise), action)
        assert {type(part) for part in policy.net} == {type(policy.net[0]), nn.Linear, nn.Tanh}


def test_equal_actions_are_equally_frequent_in_half_precision():
    """False-alarm rate 1e-6 at 4.9 standard errors. Noise in half precision has ties, which the first action wins."""
    draws, actions = 400_000, 8
    policy = CategoricalPolicy(nn.Linear(1, actions), actions).bfloat16()
    noise = policy.noise(draws, generator=torch.Generator().manual_seed(0))
    chosen = policy.sample_from_noise(torch.zeros(draws, actions, dtype=torch.bfloat16), noise)
    share = chosen.bincount(minlength=actions).double() / draws
    assert ((share - 1 / actions).abs() < 4.9 * (1 / actions / draws) ** 0.5).all()


def test_gaussian_noise_has_single_precision_in_half_precision():
    policy = GaussianPolicy(nn.Linear(1, 2), [(-1.0, 1.0)] * 2)
    full = policy.noise(50, generator=torch.Generator().manual_seed(0))
    half = policy.bfloat16().noise(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(half, full)
    assert policy.act(torch.zeros(50, 1, dtype=torch.bfloat16), half).isfinite().all()
