import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.cli._commands import train
from zoo.cli._config_groups import configs_dir
from zoo.cli._schemas import MODELS
from zoo.training import read_checkpoint, read_status

EPOCHS = 30  # of four steps: long enough to be hit, short enough to be repeated


@pytest.mark.parametrize(
    "model", [name if name == "ram" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
@pytest.mark.usefixtures("no_pictures", "without_type_checks")
def test_run_killed_at_any_moment_is_resumed_exactly(model, tiny, composed, script, end_differences, tmp_path):
    overrides = tiny(model, f"trainer.max_epochs={EPOCHS}")
    folder, delay = tmp_path / "killed", random.uniform(0, 0.3)
    last = folder / "checkpoints" / "last.ckpt"
    train_script = configs_dir().parent / "scripts" / "train.py"
    command = [sys.executable, str(train_script), *overrides, f"hydra.run.dir={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not last.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
    assert process.returncode == -signal.SIGKILL, f"it had ended before, or within {delay:.3f} seconds"
    assert read_status(folder / "status.json")["state"] == "running"
    assert 0 < read_checkpoint(last)["global_step"] < 4 * EPOCHS

    assert script("train.py", f"resume={folder}").code == 0
    train(composed(overrides), tmp_path / "whole", "command")
    assert end_differences(folder, tmp_path / "whole") == []
    rows = [Path(run, "metrics.csv").read_text() for run in (folder, tmp_path / "whole")]
    assert rows[0] == rows[1]
    status = read_status(folder / "status.json")
    assert status["state"] == "finished"
    assert status["metrics"] == read_status(tmp_path / "whole" / "status.json")["metrics"]
