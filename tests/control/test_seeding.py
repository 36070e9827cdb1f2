from zoo.control.envs.vector_env import make_environments
from zoo.control.seeding import EVALUATION, REPORT, TRAINING, seed_of


def test_no_two_uses_share_their_random_numbers():
    """Nor do the consecutive seeds that Gymnasium makes of one: runs, purposes, ranks and evaluations lie apart."""
    uses = [
        seed_of(seed, purpose, *position)
        for seed in range(10)
        for purpose, positions in (
            (TRAINING, [(0, 0), (0, 512), (1, 0)]),
            (EVALUATION, [(0,), (4096,)]),
            (REPORT, [()]),
        )
        for position in positions
    ]
    assert len({seed + env for seed in uses for env in range(200)}) == 200 * len(uses)


def test_the_same_use_has_the_same_ones():
    assert seed_of(3, TRAINING, 0, 512) == seed_of(3, TRAINING, 0, 512)


def test_environments_take_them():
    largest = max(seed_of(seed, TRAINING) for seed in range(100))
    environments = make_environments("Acrobot-v1", 2)
    environments.reset(seed=largest)
    assert environments.np_random_seed == (largest, largest + 1)
