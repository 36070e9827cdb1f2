from numpy.random import SeedSequence

TRAINING, EVALUATION, REPORT = range(3)


def derive_seed(seed: int, purpose: int, *position: int) -> int:
    """Return a seed derived from a run's seed and its use, so that no two uses share random numbers."""
    # Gymnasium seeds sub-environments consecutively: seed + 1 would collide with the next one's.
    return int(SeedSequence(seed, spawn_key=(purpose, *position)).generate_state(1)[0])
