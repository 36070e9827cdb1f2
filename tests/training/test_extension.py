import math

import pytest
import torch

from zoo.cli._commands import train
from zoo.training import config_hash, extend_config, read_checkpoint
from zoo.training._extension import configs_before_extension


class TestExtendConfig:
    @pytest.mark.parametrize(
        ("lengths", "complaint"),
        [
            ({"trainer.max_epochs": 1}, r"trainer\.max_epochs is 2 in this run, and can only become larger; got 1"),
            (
                {"model.total_timesteps": 9},
                r"length of this run is not set by model\.total_timesteps; set trainer\.max_epochs=",
            ),
        ],
    )
    def test_invalid_extension_is_refused(self, lengths, complaint):
        with pytest.raises(ValueError, match=complaint):
            extend_config({"trainer": {"max_epochs": 2}, "model": {}}, lengths)

    def test_same_length_changes_nothing(self):
        config = {"trainer": {"max_epochs": 2}}
        assert extend_config(config, {"trainer.max_epochs": 2}) == config

    def test_extended_run_has_another_hash_than_a_run_of_that_length(self):
        config = {"trainer": {"max_epochs": 2}}
        twice = extend_config(extend_config(config, {"trainer.max_epochs": 3}), {"trainer.max_epochs": 4})
        assert twice["extended"] == {"trainer.max_epochs": [2, 3]}
        assert [x["trainer"]["max_epochs"] for x in configs_before_extension(twice)] == [3, 2]
        assert list(configs_before_extension(twice))[-1] == config
        hashes = {config_hash(x) for x in (twice, {"trainer": {"max_epochs": 4}}, *configs_before_extension(twice))}
        assert len(hashes) == 4


def weights(folder):
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.mark.usefixtures("no_pictures", "without_type_checks")
class TestTraining:
    @pytest.mark.parametrize(
        ("model", "key", "short", "long"),
        [("bbvi", "trainer.max_epochs", 2, 4), ("q_learning", "model.total_timesteps", 128, 256)],
    )
    def test_extended_training_equals_a_longer_one_without_schedules(
        self, model, key, short, long, tiny, composed, tmp_path, differences
    ):
        more = ["model.schedule=constant"] if model == "bbvi" else ["trainer.max_epochs=null"]
        overrides = tiny(model, *more)
        config = composed([*overrides, f"{key}={short}"])
        train(config, tmp_path / "run", "command")
        train(extend_config(config, {key: long}), tmp_path / "run", "command")
        train(composed([*overrides, f"{key}={long}"]), tmp_path / "long", "command")
        assert differences(weights(tmp_path / "run"), weights(tmp_path / "long")) == []
        metrics = [(tmp_path / name / "metrics.csv").read_text() for name in ("run", "long")]
        assert metrics[0] == metrics[1]

    @pytest.mark.parametrize("model", ["ram", "policy_gradient"])
    def test_learning_rate_of_an_extended_training_is_that_of_the_new_length(self, model, tiny, composed, tmp_path):
        key, short, long = ("trainer.max_epochs", 2, 4) if model == "ram" else ("model.total_timesteps", 128, 256)
        more = [] if model == "ram" else ["trainer.max_epochs=null"]
        config = composed(tiny(model, *more, f"{key}={short}"))
        train(config, tmp_path, "command")
        torch.manual_seed(0)
        train(extend_config(config, {key: long}), tmp_path, "command")
        saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
        (optimizer,), (schedule,) = saved["optimizer_states"], saved["lr_schedulers"]
        steps = saved["state_dict"].get("env_steps", torch.tensor(256))  # some are lost where episodes begin
        for group, start in zip(optimizer["param_groups"], schedule["base_lrs"], strict=True):
            assert math.isclose(group["lr"], start * (1 - int(steps) / 256), abs_tol=1e-12)
        assert schedule["last_epoch"] == 16
        assert schedule.get("T_max", 16) == 16
