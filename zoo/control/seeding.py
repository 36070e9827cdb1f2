from numpy.random import SeedSequence

TRAINING, EVALUATION, REPORT = range(3)


def seed_of(seed: int, purpose: int, *position: int) -> int:
    """Mix a run's seed with what it is for, so that no two uses share their random numbers.

    Gymnasium gives its environments consecutive seeds: ``seed + 1`` would be the next environment's.

    Example:
        >>> seed_of(1, TRAINING) != seed_of(1, EVALUATION)
        True
    """
    return int(SeedSequence(seed, spawn_key=(purpose, *position)).generate_state(1)[0])
