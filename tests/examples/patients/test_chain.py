from itertools import count
from time import sleep

import pytest
import torch

from examples.patients.chain import run_chain


def counting(pause: float = 0.0):
    for n in count(1):
        sleep(pause)
        yield {"n": torch.tensor(n)}


def test_every_thinned_state_is_stored_with_its_time():
    chain = run_chain(counting(0.01), sweeps=7, thin=3)
    assert chain.draws["n"].tolist() == [3, 6]
    assert chain.seconds[0] >= 0.03
    assert chain.seconds[1] - chain.seconds[0] >= 0.03


def test_chain_stops_at_its_time_limit_with_at_least_one_state():
    assert run_chain(counting(0.02), sweeps=1000, thin=100, seconds=0.01).draws["n"].tolist() == [1]
    assert len(run_chain(counting(0.02), sweeps=1000, seconds=0.1).seconds) <= 6


@pytest.mark.parametrize(("sweeps", "thin"), [(5, 0), (5, 6), (0, 1)])
def test_thinning_to_no_state_raises(sweeps, thin):
    with pytest.raises(ValueError, match="thin must lie between 1 and the number of sweeps"):
        run_chain(counting(), sweeps, thin)
