import numpy as np
import pytest

from zoo.cli._commands import make_experiment, train
from zoo.cli._config_groups import group_choices
from zoo.cli._schemas import MODELS
from zoo.gradients import BASELINES
from zoo.training import config_hash

ESTIMATING = [name for name, choice in MODELS.items() if "estimator" in choice.parameters]
SUPPORTED_BY = {"vimco": ("sbn", "bbvi"), "enumeration": ("sbn",)}  # the others by all
DEFAULT_BASELINE = {
    "ram": "learned",
    "captioning": "leave_one_out",
    "sbn": "leave_one_out",
    "policy_gradient": "learned",
    "bbvi": "leave_one_out",
}
WITH_NETWORKS = ("learned", "learned_leave_one_out", "learned_moving_average")  # which a program must contain


@pytest.mark.parametrize("name", group_choices("model"))
def test_every_model_trains_with_its_defaults(name, composed):
    config = composed([f"model={name}"])
    assert config["model"]["_target_"]
    assert (config["trainer"]["max_epochs"] or config["model"]["total_timesteps"]) > 0


def test_every_model_has_a_configuration_and_vice_versa():
    assert set(group_choices("model")) == set(MODELS)


def test_experiments_differ_from_each_other(composed):
    hashes = {name: config_hash(composed([f"experiment={name}"])) for name in group_choices("experiment")}
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize("name", group_choices("experiment"))
def test_every_experiment_instantiates_a_model(name, composed, squares, zoo_data, monkeypatch):
    monkeypatch.setenv("ZOO_DATA", str(zoo_data))
    monkeypatch.setattr("zoo.attention.captioning.experiment.cached_features", lambda images, *_: np.zeros(len(images)))
    has_labels = composed([f"experiment={name}"])["data"] and not name.startswith("captioning")
    data = ["data=idx", f"data.root={squares}"] if has_labels else []
    config = composed([f"experiment={name}", *data])
    assert sum(weight.numel() for weight in make_experiment(config).module.parameters()) > 0


@pytest.mark.usefixtures("no_pictures")
def test_model_trains_without_validation_data(composed, squares, tmp_path):
    short = ["trainer.max_epochs=1", "trainer.batch_size=32", "trainer.accelerator=cpu", "model.patch_size=4"]
    config = composed(["experiment=ram_mnist_28_2", "data=idx", f"data.root={squares}", *short])
    assert config["data"]["validation"] == 0
    train(config, tmp_path, "command")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def options_for(model, baseline):
    """Return the options with which a model trains with a baseline."""
    length = ["model.n_steps=null"] if model == "policy_gradient" else []  # whole episodes where none may be cut
    if (model, baseline) == ("policy_gradient", "nvil"):
        length += ["model.normalize_advantage=false", "model.ent_coef=0"]  # which its running scale replaces
    return [*length, "trainer.max_epochs=1"]


@pytest.mark.usefixtures("no_pictures", "without_type_checks")
@pytest.mark.parametrize("estimator", group_choices("estimator"))
@pytest.mark.parametrize("model", ESTIMATING)
def test_model_trains_with_every_estimator_it_supports(model, estimator, tiny, composed, tmp_path):
    config = composed(tiny(model, f"estimator={estimator}", *options_for(model, estimator)))
    if model not in SUPPORTED_BY.get(estimator, [model]):
        with pytest.raises(
            ValueError, match=f"^model={model} does not support estimator={estimator}, which needs .*; use"
        ):
            make_experiment(config)
    elif (model, estimator) == ("bbvi", "nvil"):
        with pytest.raises(ValueError, match="a learned baseline"):
            make_experiment(config)
    else:
        assert train(config, tmp_path, "command").metrics


@pytest.mark.usefixtures("no_pictures", "without_type_checks")
@pytest.mark.parametrize("baseline", [*BASELINES, "0.5", "optimal"])
@pytest.mark.parametrize("model", ESTIMATING)
def test_model_trains_with_every_baseline_it_supports(model, baseline, tiny, composed, tmp_path):
    config = composed(tiny(model, f"estimator.baseline={baseline}", *options_for(model, baseline)))
    if baseline == "optimal" and model != "bbvi":
        with pytest.raises(ValueError, match="there is no baseline 'optimal'; choose one of"):
            make_experiment(config)
    elif model == "bbvi" and baseline in WITH_NETWORKS:
        with pytest.raises(ValueError, match="a learned baseline"):
            make_experiment(config)
    else:
        assert train(config, tmp_path, "command").metrics


@pytest.mark.parametrize("model", ESTIMATING)
def test_baseline_is_the_models_the_presets_or_the_explicit_one(model, composed):
    def baseline(*overrides):
        return composed([f"model={model}", *overrides])["estimator"]["baseline"]

    assert baseline() == baseline("estimator=reinforce") == DEFAULT_BASELINE[model]
    assert baseline("estimator=nvil") == "learned_moving_average"
    assert baseline("estimator=vimco") is None
    assert baseline("estimator=nvil", "estimator.baseline=none") == baseline("estimator.baseline=none") == "none"


def test_nvil_is_a_preset_of_reinforce(composed):
    expected = {"name": "reinforce", "baseline": "learned_moving_average", "decay": 0.8, "scale": True}
    assert composed(["model=sbn", "estimator=nvil"])["estimator"] == expected


@pytest.mark.parametrize("logger", group_choices("logger"))
def test_logger_does_not_change_the_run(model, logger, tiny, composed):
    assert config_hash(composed(tiny(model, f"logger={logger}"))) == config_hash(composed(tiny(model)))
