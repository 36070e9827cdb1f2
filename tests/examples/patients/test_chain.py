from itertools import count
from time import sleep

import pytest
import torch

from examples.patients.chain import run_chain


def counting(pause: float = 0.0):
    for n in count(1):
        sleep(pause)
        yield {"n": torch.tensor(n)}


def test_every_thinned_state_is_kept_with_the_time_it_was_reached():
    chain = run_chain(counting(0.01), sweeps=7, thin=3)
    assert chain.draws["n"].tolist() == [3, 6]
    assert chain.seconds[0] >= 0.03
    assert chain.seconds[1] - chain.seconds[0] >= 0.03


def test_a_chain_ends_when_its_time_is_over_and_keeps_a_state_in_any_case():
    assert run_chain(counting(0.02), sweeps=1000, thin=100, seconds=0.01).draws["n"].tolist() == [1]
    assert len(run_chain(counting(0.02), sweeps=1000, seconds=0.1).seconds) <= 6


@pytest.mark.parametrize(("sweeps", "thin"), [(5, 0), (5, 6), (0, 1)])
def test_thinning_must_leave_a_state(sweeps, thin):
    with pytest.raises(ValueError, match="thin must lie between 1 and the number of sweeps"):
        run_chain(counting(), sweeps, thin)
