from typing import Any

import numpy as np
import pytest


@pytest.fixture
def looks() -> dict[str, Any]:
    """Three grey 28 × 28 pictures with two glimpses each, as glimpse_paths takes them; the last is wrong."""
    rng = np.random.default_rng(0)
    beliefs = np.full((3, 2, 4), 0.1)
    beliefs[[0, 1, 2], 0, 3] = 0.7
    beliefs[[0, 1, 2], 1, [0, 1, 2]] = 0.7
    return {
        "images": rng.random((3, 1, 28, 28)),
        "centres": np.array([[[13.5, 9.0], [6.0, 20.25]], [[14.0, 14.0], [20.0, 8.0]], [[10.0, 9.0], [8.0, 7.0]]]),
        "sides": (8,),
        "probabilities": beliefs,
        "labels": np.array([0, 1, 3]),
        "classes": ("zero", "one", "two", "three"),
    }
