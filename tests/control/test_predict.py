import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Tuple
from gymnasium.spaces.utils import flatten_space

from zoo.control import PolicyGradient, QLearning
from zoo.control.envs._spaces import element_index, num_elements, space_from_dict, space_to_dict
from zoo.control.policy_gradient.policies import action_spec

SEVERAL = Dict(speed=Box(-1, 1, (2,)), gear=Discrete(5, start=1))
SPACES = [
    Box(-1, 1, (4,)),
    Box(0, 255, (5, 5, 3), np.uint8),
    Box(np.array([0.0, -5.0]), np.array([np.inf, 5.0]), dtype=np.float64),
    Discrete(5, start=-2),
    MultiDiscrete([[2, 3], [4, 5]]),
    MultiBinary(3),
    MultiBinary([3]),
    MultiBinary([2, 3]),
    SEVERAL,
    Tuple([Discrete(3), SEVERAL]),
]


def spaces_to_dict(observation, action):
    return {"observation": space_to_dict(observation), "action": space_to_dict(action)}


def policy(observation, action):
    shape = list((observation if isinstance(observation, Box) else flatten_space(observation)).shape)
    torch.manual_seed(0)
    return PolicyGradient(shape, action_spec(action), hidden=[8], spaces=spaces_to_dict(observation, action))


def batched(space, elements):
    """Batch elements as vector environments do."""
    if isinstance(space, Dict):
        return {key: batched(part, [element[key] for element in elements]) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(batched(part, [e[i] for e in elements]) for i, part in enumerate(space.spaces))
    return np.stack(elements)


def test_one_of_observation_is_predicted_alone_and_in_a_batch():
    space = OneOf([Discrete(3), Box(-1, 1, (2,))])
    module, observations = policy(space, Discrete(2)), ((0, np.int64(2)), (1, np.ones(2, np.float32)))
    singles = [module.predict(each, deterministic=True)[0] for each in observations]
    assert module.predict(observations, deterministic=True)[0].tolist() == singles


def test_observation_that_is_not_finite_raises():
    with pytest.raises(ValueError, match="the observation is not finite"):
        policy(Box(-1, 1, (4,)), Discrete(2)).predict(np.full(4, np.nan))


@pytest.mark.parametrize("space", SPACES, ids=str)
class TestSpaces:
    def test_space_is_restored_from_its_description(self, space):
        assert space_from_dict(space_to_dict(space)) == space

    def test_observations_are_predicted_alone_or_in_batches(self, space):
        space.seed(3)
        module, elements = policy(space, Discrete(3, start=7)), [space.sample() for _ in range(4)]
        single = [module.predict(element, deterministic=True) for element in elements]
        together, state = module.predict(batched(space, elements), deterministic=True)
        assert state is None
        assert all(kept is None for _, kept in single)
        assert together.shape == (4,)
        assert [int(action) for action, _ in single] == together.tolist()
        assert set(together) <= {7, 8, 9}

    def test_predicted_action_is_in_the_action_space(self, space):
        if isinstance(space, Dict | Tuple):
            return
        module = policy(Box(-1, 1, (2,)), space)
        for deterministic in (True, False):
            action, _ = module.predict(np.zeros(2, np.float32), deterministic=deterministic)
            assert space.contains(action)


def test_deterministic_action_is_the_most_likely_and_others_are_sampled():
    module = policy(Box(-1, 1, (2,)), Discrete(2))
    torch.nn.init.zeros_(module.policy.net[-1].weight)
    module.policy.net[-1].bias.data[:] = torch.tensor([0.0, 0.5])
    batch = np.zeros((200, 2), np.float32)
    assert module.predict(batch, deterministic=True)[0].all()
    assert 0 < module.predict(batch)[0].mean() < 1  # fails once in 1e40


def test_observation_of_another_shape_raises():
    with pytest.raises(ValueError, match=r"shape \(3,\) has neither the environment's shape \(4,\), nor"):
        PolicyGradient([4], 2).predict(np.zeros(3))


def test_table_predicts_composite_observations():
    space = Tuple([Discrete(3), Discrete(4, start=1)])
    module = QLearning(num_elements(space), 2, spaces=spaces_to_dict(space, Discrete(2)))
    module.policy.q.values.data[element_index(space, (2, 4))] = torch.tensor([0.0, 1.0])
    assert module.predict((2, 4), deterministic=True)[0] == 1
    assert module.predict((2, 3), deterministic=True)[0] == 0
    assert module.predict((np.array([2, 2]), np.array([3, 4])), deterministic=True)[0].tolist() == [0, 1]


def test_every_element_of_a_finite_space_has_its_own_index():
    space = Tuple([Discrete(3, start=-1), MultiDiscrete([2, 2]), Box(0, 1, (1,), np.int8)])
    every = [(a, np.array([b, c]), np.array([d])) for a in (-1, 0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)]
    assert [element_index(space, element) for element in every] == list(range(num_elements(space)))


def test_network_of_action_values_predicts():
    action, state = QLearning([4], 3).predict(np.zeros((5, 4), np.float32), deterministic=True)
    assert action.shape == (5,)
    assert state is None
