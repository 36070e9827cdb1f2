import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo.cli import _launch as launch
from zoo.cli._command_line import read_command_line
from zoo.cli._composition import check_settings, compose_config, register
from zoo.cli._launch import SweepRun, run_or_report, table


class TestCheckSettings:
    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["model=ram", "+lr=0.1"], r"has no option lr; did you mean model\.lr\?"),
            (["model=ram", "++model.lrr=1"], r"has no option model\.lrr; did you mean model\.lr\?"),
            (["model=ram", "+model.lr=1"], r"options are neither added nor removed: write model\.lr=VALUE, without \+"),
            (["model=ram", "~seed"], "neither added nor removed: write seed=VALUE, without ~"),
            (["model=ram", "+estimator.foo=1"], r"has no option estimator\.foo"),
            (["model=dqn", "max_env_steps=1"], r"did you mean model\.total_timesteps\?"),
            (["model=dqn", "model.rollout_steps=1"], r"did you mean model\.train_freq\?"),
            (["model=policy_gradient", "model.rollout_steps=1"], r"did you mean model\.n_steps\?"),
            (["model=dqn", "total_timesteps=1"], r"did you mean model\.total_timesteps\?"),
            (
                ["model=ram", "total_timesteps=1"],
                r"choices with model\.total_timesteps: model=dqn, model=policy_gradient",
            ),
            (["model=ram", "model.buffer_size=1"], r"choices with model\.buffer_size: model=dqn, model=q_learning"),
            (
                ["model=ram", "data.root=x"],
                r"choices with data\.root: data=flickr8k, data=idx, data=image_folder, data=karpathy",
            ),
            (["model=dqn", "estimator.scale=true"], r"has no option estimator\.scale"),
            (["model=ram", "logger.name=x"], r"has no option logger\.name"),
            (["model=ram", "model._target_=os.system"], r"_target_ 'os\.system' may not be instantiated"),
            (["model=ram", "model.lr.x=1"], r"has no option model\.lr\.x"),
            (["seed=1", "lr=0.1"], "there is no option lr without a model: choose one, model=bbvi|dqn"),
            (["model=ram", "seed=18446744073709551616"], "seed must be a whole number, got 18446744073709551616"),
            (["model=ram", "env="], "env must not be empty"),
            (["model=ram", "trainer.precision=16-mixed"], "use bf16-mixed or 32-true"),
            (["-m", "model=ram,dqn", "model.num_glimpses=3"], r"model=dqn has no option model\.num_glimpses"),
            (["-m", "model=ram", "model.lr=0.1,-1"], r"model\.lr must be above 0, got -1"),
            (
                ["experiment=dqn_cartpole", "model.num_glimpses=3"],
                r"experiment=dqn_cartpole has no option model\.num_glimpses",
            ),
            (["experiment=ram_mnist_5k", "model=sbn"], "belongs to model=ram: remove model=sbn"),
            (["model=ram", "experiment=dqn_cartpole"], "belongs to model=dqn: remove model=ram"),
            (["model=dqn", "trainer.precision=64-true"], r"trainer\.precision must be one of 32-true, 32, bf16-mixed"),
            (["model=policy_gradient", "trainer.precision=bf16-true"], r"must be one of 32-true, 32, bf16-mixed"),
        ],
    )
    def test_unknown_or_invalid_setting_is_refused_with_the_nearest_option(self, arguments, complaint):
        register()
        with pytest.raises(ValueError, match=complaint):
            check_settings(read_command_line(arguments))

    @pytest.mark.parametrize(
        ("former", "key"),
        [
            ("glimpses", "num_glimpses"),
            ("glimpse_size", "patch_size"),
            ("scales", "num_scales"),
            ("span", "location_range"),
            ("gaze", "location_policy"),
            ("rollouts", "num_samples"),
            ("locator_hidden", "location_hidden"),
            ("spread", "spiral_radius"),
        ],
    )
    @pytest.mark.parametrize("group", ["", "model."])
    def test_former_key_of_ram_is_answered_with_the_present_one(self, group, former, key):
        register()
        with pytest.raises(ValueError, match=rf"has no option {group}{former}; did you mean model\.{key}\?"):
            check_settings(read_command_line(["model=ram", f"{group}{former}=1"]))

    def test_settings_valid_for_every_run_of_a_sweep_are_accepted(self):
        register()
        check_settings(read_command_line(["-m", "model=ram,dqn", "model.lr=0.1,0.2", "seed=1,2", "trainer.devices=1"]))

    def test_number_is_accepted_as_text(self):
        register()
        check_settings(read_command_line(["model=ram", "logger.project=2026"]))


class TestRunOrReport:
    def test_failed_run_of_a_sweep_is_reported_in_a_sentence(self, capsys):
        def fail():
            raise ValueError("the cure")

        assert run_or_report(fail) == (Path(), {}, "the cure")
        assert capsys.readouterr().err == "\nError: the cure\n"

    def test_internal_error_in_a_sweep_prints_its_traceback(self, capsys):
        def fail():
            raise KeyError("x")

        assert run_or_report(fail) == (Path(), {}, "KeyError: 'x'")
        assert "Traceback" in capsys.readouterr().err

    def test_every_error_in_a_sweep_prints_its_traceback_in_dev_mode(self, capsys, monkeypatch):
        def fail():
            raise ValueError("the cure")

        monkeypatch.setattr(launch.sys, "flags", SimpleNamespace(dev_mode=True))
        run_or_report(fail)
        assert "Traceback" in capsys.readouterr().err

    def test_interrupted_run_ends_the_sweep(self):
        with pytest.raises(SystemExit):
            run_or_report(lambda: sys.exit(130))


def test_table_of_a_sweep_shows_settings_metrics_and_failures():
    runs = [
        SweepRun({"seed": "1", "model.lr": "0.1"}, Path("runs/a"), {"test_error": 0.125, "spread": 1.0}, None),
        SweepRun({"seed": "2", "model.lr": "0.1"}, Path("runs/b"), {}, "the cure"),
    ]
    head, first, second = table(runs).splitlines()
    assert head.split() == ["seed", "model.lr", "test_error", "spread", "folder"]
    assert first.split() == ["1", "0.1", "0.125", "1", "runs/a"]
    assert second.split() == ["2", "0.1", "-", "-", "failed:", "the", "cure"]


@pytest.mark.parametrize("argument", ["env_kwargs.max_episode_steps=9", "env_kwargs={max_episode_steps: 9}"])
def test_env_kwargs_are_set_one_by_one_or_together(argument):
    request = read_command_line(["model=dqn", argument])
    register()
    check_settings(request)
    assert compose_config(request.arguments())["env_kwargs"] == {"max_episode_steps": 9}
