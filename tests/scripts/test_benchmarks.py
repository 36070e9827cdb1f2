import sys

import pytest

SCRIPTS = {
    "benchmarks/against_stable_baselines3.py": ("seeds", "record"),
    "benchmarks/beta_bernoulli.py": ("seeds", "limit", "record"),
    "benchmarks/variance_ladder.py": ("patients", "visits", "seeds", "steps", "num_particles", "num_samples", "record"),
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
    answer = script(name)
    assert (answer.code, answer.err) == (130, "\nInterrupted.\n")
