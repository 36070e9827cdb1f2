from typing import Any

import numpy as np
import pytest


@pytest.fixture
def arguments() -> dict[str, Any]:
    """Arguments of ``glimpse_summary``: three gray 28×28 images, two glimpses each; the last prediction is wrong."""
    rng = np.random.default_rng(0)
    probabilities = np.full((3, 2, 4), 0.1)
    probabilities[[0, 1, 2], 0, 3] = 0.7
    probabilities[[0, 1, 2], 1, [0, 1, 2]] = 0.7
    return {
        "images": rng.random((3, 1, 28, 28)),
        "centers": np.array([[[13.5, 9.0], [6.0, 20.25]], [[14.0, 14.0], [20.0, 8.0]], [[10.0, 9.0], [8.0, 7.0]]]),
        "patch_sizes": (8,),
        "probabilities": probabilities,
        "labels": np.array([0, 1, 3]),
        "classes": ("zero", "one", "two", "three"),
    }
