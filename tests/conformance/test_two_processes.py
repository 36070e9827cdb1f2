import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo.training import read_checkpoint, read_status


@pytest.fixture(params=["ram"])
def model(request):
    """Those that train on several processes; the others ask for one."""
    return request.param


def drive(*arguments, **environment):
    """Run the script on two processes, and give what it says."""
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def arguments(tiny):
    def make(model, folder):
        return tiny(model, "trainer.devices=2", "trainer.batch_size=8", f"hydra.run.dir={folder}")

    return make


@pytest.fixture(scope="module")
def runs(arguments, tmp_path_factory):
    """Folder of each model's run of two epochs on two processes, made once."""
    folders = {}

    def run(model):
        if model not in folders:
            folder = tmp_path_factory.mktemp("two") / model
            done = drive(*arguments(model, folder))
            assert done.returncode == 0, done.stderr
            folders[model] = folder, done.stdout
        return folders[model]

    return run


@pytest.fixture
def folder(runs, model):
    return runs(model)[0]


@pytest.fixture
def ranks(folder):
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_ranks_end_with_the_same_weights(ranks, folder, differences):
    assert differences(ranks[0]["weights"], ranks[1]["weights"]) == []
    saved = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert differences(saved["state_dict"], ranks[0]["weights"]) == []


def test_ranks_have_own_random_states_and_the_checkpoint_holds_both(ranks, folder, differences):
    assert not torch.equal(ranks[0]["random"], ranks[1]["random"])
    saved = [state["torch"] for state in read_checkpoint(folder / "checkpoints" / "last.ckpt")["random_states"]]
    assert differences(saved, [rank["random"] for rank in ranks]) == []


def test_ranks_share_the_data(ranks):
    first, second = (torch.cat([batch[0] for batch in rank["seen"]]).flatten(1) for rank in ranks)
    assert len(first) == len(second) > 0
    assert not {tuple(x.tolist()) for x in first} & {tuple(x.tolist()) for x in second}


def test_ranks_write_one_record_and_one_report(runs, model):
    folder, said = runs(model)
    assert read_status(folder / "status.json")["state"] == "finished"
    assert said.count("test error") == 1
    assert said.count("epoch 2/2") == 1
    assert (folder / "metrics.csv").read_text().count("\n") == 3
    assert not list(folder.rglob("*.unfinished"))


@pytest.mark.slow
def test_ranks_stopped_by_a_signal_to_one_are_resumed_exactly(folder, model, arguments, end_differences, tmp_path):
    parts = tmp_path / "parts"
    stopped = drive(*arguments(model, parts), STOP_AT="6")
    assert stopped.returncode == 130, stopped.stderr
    assert read_checkpoint(parts / "checkpoints" / "last.ckpt")["global_step"] == 6
    resumed = drive(f"resume={parts}")
    assert resumed.returncode == 0, resumed.stderr
    assert end_differences(folder, parts) == []
