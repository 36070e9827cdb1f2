import json
import sys

import pytest

from zoo.training import read_status

SCRIPTS = {
    "benchmarks/against_stable_baselines3.py": ("seeds", "record"),
    "benchmarks/beta_bernoulli.py": ("seeds", "limit", "record"),
    "benchmarks/captioning_comparison.py": ("first", "second", "num_resamples", "record"),
    "benchmarks/captioning_variance.py": ("checkpoint", "num_samples", "num_gradients", "record"),
    "benchmarks/variance_ladder.py": ("patients", "visits", "seeds", "steps", "num_particles", "num_samples", "record"),
}

REQUIRED = {
    "benchmarks/captioning_comparison.py": ("first=[a]", "second=[b]"),
    "benchmarks/captioning_variance.py": ("checkpoint=last.ckpt",),
}


@pytest.fixture
def without_stable_baselines3(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("stable_baselines3.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)


@pytest.mark.usefixtures("without_stable_baselines3")
@pytest.mark.parametrize(("name", "arguments"), SCRIPTS.items())
def test_help_describes_each_argument_without_extras(name, arguments, script):
    answer = script(name, "--help")
    assert answer.code == 0
    assert all(f"\n{argument}=" in answer.out for argument in arguments)


@pytest.mark.usefixtures("without_stable_baselines3")
def test_missing_extra_is_reported_with_the_command_that_installs_it(script):
    answer = script("benchmarks/against_stable_baselines3.py")
    assert answer.code == 1
    assert answer.err.strip() == 'Error: stable_baselines3 is not installed: pip install -e ".[bench]"'


@pytest.mark.parametrize("name", SCRIPTS)
def test_ctrl_c_ends_in_a_sentence(name, script, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.set_num_threads", interrupted)
    answer = script(name, *REQUIRED.get(name, ()))
    assert (answer.code, answer.err) == (130, "\nInterrupted.\n")


def test_variance_of_captioning_is_lowest_with_leave_one_out(script, finished, tmp_path):
    small = ["num_gradients=20", "num_batches=1", "batch_size=4", "fitting_steps=4", "num_samples=4"]
    checkpoint, record = finished("captioning") / "checkpoints" / "last.ckpt", tmp_path / "record.json"
    answer = script("benchmarks/captioning_variance.py", f"checkpoint={checkpoint}", f"record={record}", *small)
    assert answer.code == 0, answer.err
    found = json.loads(record.read_text())["found"]
    variances = {(row["gradient"], row["baseline"]): row["variance"] for row in found}
    assert len(variances) == 7
    assert variances["cells", "leave_one_out"] < 0.2 * variances["cells", "none"]
    assert variances["cells", "moving_average"] != variances["cells", "none"]


def test_comparison_of_captioning_has_paired_intervals(script, finished, tmp_path):
    run, record = finished("captioning"), tmp_path / "record.json"
    answer = script(
        "benchmarks/captioning_comparison.py",
        *(f"first=[{run}]", f"second=[{run},{run}]", "num_resamples=20", f"record={record}"),
    )
    assert answer.code == 0, answer.err
    found = json.loads(record.read_text())
    metrics = read_status(run / "status.json")["metrics"]
    for name in ("bleu4", "cider", "nll"):
        assert found[name]["first"] == pytest.approx(metrics[f"test_{name}"], rel=1e-6)
        assert found[name]["difference"] == [0, 0, 0]
