import numpy as np
import pytest
import torch
from torch import nn

from zoo.control.acting import actor, numpy_forward
from zoo.control.networks import Standardize, network
from zoo.control.policy_gradient.policies import CategoricalPolicy, make_policy

SHAPES = [(), (4,), (2, 3)]
POLICIES = {"categorical": 3, "several": [2, 3], "gaussian": [(-2.0, 2.0), (0.0, 1.0)]}


@pytest.fixture
def learned():
    """Make a policy whose numbers have all moved away from where they began."""

    def make(shape, actions, hidden=(16, 8)):
        policy = make_policy(shape, actions, hidden)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_()
        policy.net[0].update(3 * torch.randn(100, *shape) + 1)
        return policy

    return make


def both(policy, observation):
    noise = policy.noise(len(observation))
    return actor(policy)(observation, noise), policy.act(torch.from_numpy(observation), noise)


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("actions", POLICIES.values(), ids=POLICIES)
class TestNumpy:
    def test_acts_as_the_policy_does(self, learned, actions, shape, hidden):
        observation = np.random.default_rng(0).normal(1, 9, (200, *shape)).astype(np.float32)
        acted, expected = both(learned(shape, actions, hidden), observation)
        assert acted.dtype == expected.dtype
        torch.testing.assert_close(acted, expected.detach())

    def test_reads_any_kind_of_number_and_leaves_it_alone(self, learned, actions, shape, hidden):
        policy = learned(shape, actions, hidden)
        for dtype in (bool, np.uint8, np.int64, np.float64):
            observation = np.random.default_rng(0).integers(0, 2, (50, *shape)).astype(dtype)
            before = observation.copy()
            torch.testing.assert_close(*(action.detach() for action in both(policy, observation)))
            assert (observation == before).all()


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_numpy_takes_a_large_offset_off_as_the_policy_does(dtype, learned):
    policy = learned((4,), 3)
    observation = 1_700_000_000 + np.random.default_rng(0).integers(0, 100, (200, 4)).astype(dtype)
    policy.net[0] = Standardize((4,))
    policy.net[0].update(torch.from_numpy(observation[:100]))
    torch.testing.assert_close(
        torch.from_numpy(numpy_forward(policy.net)(observation)), policy.net(torch.from_numpy(observation))
    )
    assert policy.net[0](torch.from_numpy(observation)).std() > 0.5


class TestActor:
    def test_follows_an_update_of_the_parameters(self, learned):
        policy = learned((4,), 3)
        observation = torch.randn(64, 4).numpy()
        before = numpy_forward(policy.net)(observation)
        with torch.no_grad():
            policy.net[-1].bias += torch.tensor([0.0, 50.0, 0.0])
        policy.net[0].update(torch.randn(1000, 4))
        acted, expected = both(policy, observation)
        assert torch.equal(acted, expected)
        assert abs(numpy_forward(policy.net)(observation) - before).max() > 1

    def test_leaves_to_torch_what_numpy_would_get_wrong(self):
        nets = nn.Linear(4, 2), network((10, 10, 4), 2, (8,)), nn.Sequential(Standardize((4,)), nn.ReLU())
        assert [numpy_forward(net) for net in nets] == [None] * 3
        torch.testing.assert_close(*both(CategoricalPolicy(nets[0], 2), np.ones((5, 4), np.float32)))

    def test_leaves_to_torch_layers_without_a_bias_and_subclasses(self):
        class Twice(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        assert numpy_forward(nn.Sequential(Standardize((4,)), Twice(4, 2))) is None
        assert numpy_forward(nn.Sequential(Standardize((4,)), nn.Linear(4, 2, bias=False))) is None
