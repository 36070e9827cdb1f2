from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from zoo.inference.programs import _hmm as hmm

pytestmark = pytest.mark.usefixtures("double")


def test_the_forward_algorithm_sums_over_all_paths(joint, zoo_data, noise, tensors):
    (y,) = hmm.HMM.load(zoo_data)
    mu, first = noise.normal([3, 10], 1), noise.beta(2, 2, size=2)
    transition = np.stack([first, 1 - first], 1)
    paths = [
        stats.norm(mu[list(path)], 1).logpdf(y.numpy()).sum() + np.log(transition[path[:-1], path[1:]]).sum()
        for path in product([0, 1], repeat=len(y))
    ]
    expected = stats.norm([3, 10], 1).logpdf(mu).sum() + logsumexp(paths)
    assert joint(hmm.model, (y,), tensors(mu=mu, first=first)) == pytest.approx(expected, rel=1e-12)
    quantities = hmm.quantities({"mu": torch.tensor(mu)[None], "first": torch.tensor(first)[None]})
    assert quantities[0].tolist() == pytest.approx([*transition.ravel(), *mu])
