import random
from unittest.mock import Mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from zoo.data import Batches
from zoo.training import TrainingInterruptedError, read_checkpoint
from zoo.training import _resume as resume
from zoo.training._resume import ExactResume, random_state, set_random_state

DRAWS = {
    "Python": random.random,
    "Python's Gaussian, which draws two and keeps one": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "numpy's Gaussian, which draws two and keeps one": np.random.randn,
    "torch": lambda: torch.rand(()).item(),
    "torch's Gaussian": lambda: torch.randn(()).item(),
}


class TestRandomState:
    @pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
    def test_random_state_repeats_the_draws_after_it(self, draw):
        draw()
        state = random_state()
        drawn = [draw() for _ in range(3)]
        assert [draw() for _ in range(3)] != drawn
        set_random_state(state)
        assert [draw() for _ in range(3)] == drawn

    def test_random_state_is_plain_data_and_survives_a_file(self, tmp_path, differences):
        state = random_state()
        torch.save(state, tmp_path / "state.pt")
        assert differences(torch.load(tmp_path / "state.pt", weights_only=True), state) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def differences_from_whole(whole, train, interrupt, differences):
    """Train in one go, and again with an interruption; tell in what the last checkpoints differ, paths aside."""
    if not (whole / "checkpoints").exists():
        train(whole)

    def compare(folder, step):
        with pytest.raises(TrainingInterruptedError):
            train(folder, interrupt(step))
        train(folder)
        assert (folder / "metrics.csv").read_text().count("\n") == 3  # a head and two epochs
        ends = [read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, folder)]
        return differences(*({key: end[key] for key in end.keys() - {"callbacks"}} for end in ends))

    return compare


class TestExactResume:
    @pytest.mark.parametrize("step", [1, 3, 4, 5, 7])
    def test_run_stopped_after_any_step_ends_like_an_uninterrupted_one(self, step, tmp_path, differences_from_whole):
        assert differences_from_whole(tmp_path, step) == []

    def test_run_resumed_without_random_states_ends_differently(self, tmp_path, differences_from_whole, monkeypatch):
        monkeypatch.setattr(resume, "set_random_state", lambda state: None)
        assert "/state_dict/net.weight" in differences_from_whole(tmp_path, 3)

    def test_run_resumed_at_the_start_of_its_epoch_differs(self, tmp_path, differences_from_whole, monkeypatch):
        monkeypatch.setattr(Batches, "load_state_dict", lambda self, state: None)
        assert "/state_dict/net.weight" in differences_from_whole(tmp_path, 3)


def trainer(rank):
    return Mock(spec=pl.Trainer, global_rank=rank)


class TestRanks:
    def test_ranks_start_with_different_random_states(self, noisy):
        module = noisy()

        def first_number(rank):
            torch.manual_seed(7)
            ExactResume().on_train_start(trainer(rank), module)
            return torch.rand(()).item()

        assert first_number(0) == torch.rand((), generator=torch.Generator().manual_seed(7)).item()
        assert len({first_number(rank) for rank in range(4)}) == 4

    def test_ranks_resume_their_own_random_states(self, noisy):
        states = []
        for seed in range(2):
            torch.manual_seed(seed)
            states.append(random_state())
        checkpoint = {"random_states": states, "loops": {"fit_loop": {"state_dict": {}}}}
        for rank in range(2):
            again = ExactResume()
            again.on_load_checkpoint(trainer(rank), noisy(), checkpoint)
            again.on_train_start(trainer(rank), noisy())
            assert torch.equal(torch.get_rng_state(), states[rank]["torch"])
