import pytest

from zoo.control.envs.registration import find_spec, import_env_module
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment


class TestImporting:
    def test_is_refused_without_trust_and_runs_nothing(self, tmp_path, monkeypatch):
        (tmp_path / "evil.py").write_text("raise SystemExit(3)")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=r"env=evil:Door-v0 imports evil and so runs its code: add trust=true"):
            import_env_module("evil:Door-v0", trust=False)

    def test_finds_modules_of_the_current_folder(self, corridor):
        assert import_env_module(corridor, trust=True) == "Corridor-v0"
        assert find_spec("Corridor-v0").max_episode_steps == 50

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere_at_all:X-v0", "there is no module nowhere_at_all, neither installed nor in"),
            ("a b:X-v0", "must be MODULE:NAME"),
            ("needy:X-v0", "needy needs a package that is not installed"),
            ("broken:X-v0", "importing broken raised ZeroDivisionError"),
        ],
    )
    def test_of_what_cannot_be_imported_is_refused_in_a_sentence(self, name, message, tmp_path, monkeypatch):
        (tmp_path / "needy.py").write_text("import nowhere_at_all")
        (tmp_path / "broken.py").write_text("1 / 0")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=message):
            import_env_module(name, trust=True)


def test_ids_that_ale_py_registers_without_a_namespace_are_found():
    assert find_spec("PongNoFrameskip-v4").kwargs["frameskip"] == 1


def test_an_environment_of_ones_own_gets_its_options(corridor):
    options = {"n_eval_episodes": 2, "num_envs": 2, "env_kwargs": {"max_episode_steps": 9}}
    made = PolicyGradientExperiment(corridor, {"baseline": "learned"}, seed=1, trust=True, **options)
    assert made.name == "Corridor-v0"
    batch = next(iter(made.loaders.train(0, 1)))
    assert batch.rollout.step_count.max() == 8
