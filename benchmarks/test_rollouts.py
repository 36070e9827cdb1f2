"""Cost of acting: a vector environment with a policy, compared with the same one given precomputed actions."""

import numpy as np
import pytest
import torch
from training import medians

from zoo.control import VectorEnvAdapter, collect_rollout, make_policy, make_vector_env

ENVS, STEPS = 64, 256
MIN_SHARE = 0.35


@pytest.fixture
def acting():
    """Collect a rollout of a policy."""
    torch.manual_seed(0)
    envs, step_count = VectorEnvAdapter(make_vector_env("CartPole-v1", ENVS)), np.zeros(ENVS, np.int64)
    envs.reset(seed=0)
    policy = make_policy((4,), 2, hidden=[64])
    return lambda: collect_rollout(envs, policy, STEPS, step_count)


@pytest.fixture
def stepping():
    """Step the environments with precomputed actions."""
    vector = make_vector_env("CartPole-v1", ENVS)
    vector.reset(seed=0)
    actions = np.random.default_rng(0).integers(2, size=(STEPS, ENVS))

    def step():
        for action in actions:
            vector.step(action)

    return step


def test_rollout_has_as_many_steps_as_the_comparison(acting):
    assert acting().reward.shape == (STEPS, ENVS)


def test_acting_keeps_a_share_of_the_speed_of_the_environment(acting, stepping, measured):
    with_policy, alone = medians(60, acting, stepping)
    measured("steps a second with a policy in the loop, as a share of the environment's own", alone / with_policy)
    assert alone / with_policy >= MIN_SHARE
