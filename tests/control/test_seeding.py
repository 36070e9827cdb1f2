from zoo.control._seeding import EVALUATION, REPORT, TRAINING, derive_seed
from zoo.control.envs.factory import make_vector_env


def test_no_two_uses_share_seeds():
    """Including the consecutive seeds that Gymnasium derives from one."""
    uses = [
        derive_seed(seed, purpose, *position)
        for seed in range(10)
        for purpose, positions in (
            (TRAINING, [(0, 0), (0, 512), (1, 0)]),
            (EVALUATION, [(0,), (4096,)]),
            (REPORT, [()]),
        )
        for position in positions
    ]
    assert len({seed + env for seed in uses for env in range(200)}) == 200 * len(uses)


def test_seed_of_a_use_is_reproducible():
    assert derive_seed(3, TRAINING, 0, 512) == derive_seed(3, TRAINING, 0, 512)


def test_environments_accept_derived_seeds():
    largest = max(derive_seed(seed, TRAINING) for seed in range(100))
    envs = make_vector_env("Acrobot-v1", 2)
    envs.reset(seed=largest)
    assert envs.np_random_seed == (largest, largest + 1)
