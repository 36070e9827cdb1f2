"""Kills at every moment at which a run changes its folder: the writes are listed by Python's own audit events."""

import os
import random
import resource
import shutil
import signal
import traceback
from pathlib import Path

import pytest
import torch

from zoo.cli._commands import train
from zoo.training import read_status

pytestmark = [
    pytest.mark.usefixtures("no_pictures", "without_type_checks"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="autograd's threads for GPUs do not survive a fork"),
]

CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0}  # and which argument is the place
SAMPLE = 2  # kills of each model in the default run
HALF = 64  # bytes of a file that reach the disk where a run is killed within a write


def in_child(act, *arguments):
    """Call a function in a copy of this process, and give how that ended: 0, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # those of a pool are not copied
        try:
            act(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch(folder, see):
    """Have every change of a folder by this process seen before it is made; a process is watched until its end."""

    def hook(event, arguments):
        if event == "open":
            place, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event in CHANGES:
            place, writes = arguments[CHANGES[event]], True
        else:
            return
        if writes and not isinstance(place, int) and Path(os.fsdecode(place)).is_relative_to(folder):
            see(event, str(Path(os.fsdecode(place)).relative_to(folder)))

    import sys

    sys.addaudithook(hook)


def run_and_list(config, folder, listing):
    """Train, and list the changes of the folder, a line each."""
    with listing.open("w") as file:
        watch(folder, lambda *change: print(*change, file=file, flush=True))
        train(config, folder, "command")


def run_and_kill(config, folder, number, within):
    """Train until a change of the folder: killed before it is made or, if it is the writing of a file, within that."""
    seen = []

    def see(event, place):
        seen.append(place)
        if len(seen) == number + 1:
            if not within:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would make an error of it
            resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, HALF))

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch(folder, see)
    train(config, folder, "command")


@pytest.fixture(scope="module")
def whole_runs(tiny, composed, tmp_path_factory):
    """Configuration, folder and changes of each model's run without interruption, made once."""
    runs = {}

    def run(model):
        if model not in runs:
            folder = tmp_path_factory.mktemp(model)
            config, listing = composed(tiny(model)), folder / "changes"
            assert in_child(run_and_list, config, folder / "whole", listing) == 0
            runs[model] = config, folder / "whole", listing.read_text().splitlines()
        return runs[model]

    return run


def kills(changes):
    """All there are: before each change, within each writing of a file, and after the last."""
    before = [(number, False) for number in range(len(changes))]
    within = [
        (number, True) for number, change in enumerate(changes) if change.endswith(".unfinished") and "open" in change
    ]
    return before + within


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def end_of_kill(model, whole_runs, end_differences, tmp_path):
    """Kill a run, go on with it, and say in what it differs from the one without interruption."""
    config, whole, changes = whole_runs(model)

    def compare(number, within):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        killed = in_child(run_and_kill, config, folder, number, within)
        if killed != (-signal.SIGXFSZ if within else -signal.SIGKILL):
            return [f"it ended with {killed} instead of being killed"]
        recorded = not (folder / "status.json").exists() or (folder / "config.yaml").exists()
        differing = [] if recorded else ["a run is recorded that cannot be resumed"]
        if in_child(train, config, folder, "command") != 0:
            return [*differing, "it could not go on"]
        differing += end_differences(whole, folder)
        for name in ("metrics.csv", "config.yaml"):
            if (whole / name).read_text() != (folder / name).read_text():
                differing.append(name)
        one, other = (read_status(run / "status.json") for run in (whole, folder))
        differing += [key for key in ("state", "metrics", "config_hash") if one[key] != other[key]]
        return differing + sorted(files(whole) ^ files(folder))

    return lambda number, within: [f"{changes[number]}, within {within}: {found}" for found in compare(number, within)]


def test_run_killed_at_a_write_and_resumed_equals_the_uninterrupted_one(model, whole_runs, end_of_kill):
    sample = random.Random(model).sample(kills(whole_runs(model)[2]), SAMPLE)
    assert [found for kill in sample for found in end_of_kill(*kill)] == []


@pytest.mark.slow
def test_run_killed_at_any_write_and_resumed_equals_the_uninterrupted_one(model, whole_runs, end_of_kill):
    everything = kills(whole_runs(model)[2])
    found = [found for kill in everything for found in end_of_kill(*kill)]
    print(f"{model}: {len(everything)} kills")
    assert found == []


def test_run_writes_only_record_metrics_and_checkpoints(model, whole_runs):
    places = {change.split()[1] for change in whole_runs(model)[2]}
    assert places >= {"config.yaml", "status.json", "metrics.csv", "checkpoints/last.ckpt", ".lock"}
