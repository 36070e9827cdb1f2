import pytest

from zoo.control.envs._registration import find_spec, import_env_module
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment


class TestImportEnvModule:
    def test_untrusted_module_is_not_imported(self, tmp_path, monkeypatch):
        (tmp_path / "evil.py").write_text("raise SystemExit(3)")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=r"env=evil:Door-v0 imports evil and so runs its code: add trust=true"):
            import_env_module("evil:Door-v0", trust=False)

    def test_module_in_the_current_folder_is_imported(self, corridor):
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
    def test_module_that_cannot_be_imported_raises(self, name, message, tmp_path, monkeypatch):
        (tmp_path / "needy.py").write_text("import nowhere_at_all")
        (tmp_path / "broken.py").write_text("1 / 0")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=message):
            import_env_module(name, trust=True)


def test_ale_ids_without_a_namespace_are_found():
    assert find_spec("PongNoFrameskip-v4").kwargs["frameskip"] == 1


def test_custom_environment_receives_its_env_kwargs(corridor):
    options = {"n_eval_episodes": 2, "num_envs": 2, "env_kwargs": {"max_episode_steps": 9}}
    made = PolicyGradientExperiment(corridor, {"baseline": "learned"}, seed=1, trust=True, **options)
    assert made.name == "Corridor-v0"
    batch = next(iter(made.loaders.train(0, 1)))
    assert batch.rollout.step_count.max() == 8
