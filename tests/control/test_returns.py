import pytest
import torch

from zoo.control.returns import lambda_returns, reward_to_go

TIME, BATCH = 9, 40


@pytest.fixture
def episodes():
    """Rewards, next values and ends of several short episodes per column."""
    generator = torch.Generator().manual_seed(0)
    reward, next_value = torch.randn(2, TIME, BATCH, generator=generator, dtype=torch.float64)
    done = torch.rand(TIME, BATCH, generator=generator) < 0.25
    terminated = done & (torch.rand(TIME, BATCH, generator=generator) < 0.5)
    return reward, next_value.masked_fill(terminated, 0), done


def mixture_of_n_step_returns(reward, discount, next_value, done, gae_lambda):
    """Return ``(1 - λ) Σ_n λ^{n-1} G^(n) + λ^{N-1} G^(N)`` elementwise, with ``N`` the number of steps left."""
    result = torch.zeros_like(reward)
    for b in range(reward.shape[1]):
        for t in range(len(reward)):
            left = next((n for n in range(1, len(reward) - t) if done[t + n - 1, b]), len(reward) - t)
            for n in range(1, left + 1):
                earned = sum(discount**k * reward[t + k, b] for k in range(n))
                n_step = earned + discount**n * next_value[t + n - 1, b]
                result[t, b] += gae_lambda ** (n - 1) * (1 if n == left else 1 - gae_lambda) * n_step
    return result


class TestLambdaReturns:
    @pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 0.95, 1.0])
    @pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
    def test_lambda_return_is_the_mixture_of_all_n_step_returns(self, episodes, discount, gae_lambda):
        reward, next_value, done = episodes
        ours = lambda_returns(reward, discount, next_value, done, gae_lambda)
        expected = mixture_of_n_step_returns(reward, discount, next_value, done, gae_lambda)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)

    def test_lambda_return_ignores_rewards_after_the_end_of_an_episode(self, episodes):
        reward, next_value, done = episodes
        done[4] = True
        before = lambda_returns(reward, 0.9, next_value, done, 0.9)
        reward[5:] += 100
        after = lambda_returns(reward, 0.9, next_value, done, 0.9)
        assert torch.equal(before[:5], after[:5])
        assert (before[5:] != after[5:]).all()

    def test_lambda_return_bootstraps_after_truncation_and_not_after_termination(self):
        done, terminated = torch.tensor([[True, True]]), torch.tensor([[False, True]])
        value = torch.full((1, 2), 8.0).masked_fill(terminated, 0)
        assert lambda_returns(torch.ones(1, 2), 0.5, value, done, gae_lambda=1.0).tolist() == [[5.0, 1.0]]


class TestRewardToGo:
    def test_reward_to_go_by_hand(self):
        reward, bootstrap = torch.tensor([1.0, 2.0, 3.0]), torch.tensor(16.0)
        assert reward_to_go(reward, 0.5, bootstrap).tolist() == [1 + 1 + 0.75 + 2, 2 + 1.5 + 4, 3 + 8]

    def test_reward_to_go_with_a_discount_per_step(self):
        discount = torch.tensor([0.5, 0.0, 0.5])
        assert reward_to_go(torch.ones(3), discount, torch.tensor(4.0)).tolist() == [1.5, 1, 3]

    def test_reward_to_go_keeps_double_precision(self):
        returns = reward_to_go(torch.ones(2, dtype=torch.float64), 0.9, torch.zeros((), dtype=torch.float64))
        assert returns[0].item() == 1.9


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_fraction_outside_its_range_raises(wrong):
    one, done = torch.ones(1), torch.tensor([False])
    with pytest.raises(ValueError, match="discount must lie between 0 and 1"):
        reward_to_go(one, wrong, torch.zeros(()))
    with pytest.raises(ValueError, match="gamma must lie between 0 and 1"):
        lambda_returns(one, wrong, one, done, 0.9)
    with pytest.raises(ValueError, match="gae_lambda must lie between 0 and 1"):
        lambda_returns(one, 0.9, one, done, wrong)
