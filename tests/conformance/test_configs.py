import inspect

import pytest

from zoo.cli._commands import make_experiment, train
from zoo.cli._composition import options
from zoo.cli._schemas import MODELS
from zoo.training import config_hash

ESTIMATING = [name for name, (builder, _) in MODELS.items() if "estimator" in inspect.signature(builder).parameters]
ESTIMATORS = [name for name in options("estimator") if name != "constant"]  # which needs a number
KNOWN_TO = {"vimco": ("sbn", "bbvi"), "enumeration": ("sbn",), "optimal": ("bbvi",)}  # the others to all
WITH_NETWORKS = ("learned", "learned_leave_one_out", "nvil")  # which a program has to bring


@pytest.mark.parametrize("name", options("model"))
def test_every_model_trains_with_its_defaults(name, composed):
    config = composed([f"model={name}"])
    assert config["model"]["_target_"]
    assert (config["trainer"]["max_epochs"] or config["model"]["total_timesteps"]) > 0


def test_every_model_has_a_configuration_and_vice_versa():
    assert set(options("model")) == set(MODELS)


def test_experiments_differ_from_each_other(composed):
    hashes = {name: config_hash(composed([f"experiment={name}"])) for name in options("experiment")}
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_instantiates_a_model(name, composed, squares, zoo_data, monkeypatch):
    monkeypatch.setenv("ZOO_DATA", str(zoo_data))
    data = ["data=idx", f"data.root={squares}"] if composed([f"experiment={name}"])["data"] else []
    config = composed([f"experiment={name}", *data])
    assert sum(weight.numel() for weight in make_experiment(config).module.parameters()) > 0


@pytest.mark.usefixtures("no_pictures")
def test_model_trains_without_validation_data(composed, squares, tmp_path):
    short = ["trainer.max_epochs=1", "trainer.batch_size=32", "trainer.accelerator=cpu", "model.patch_size=4"]
    config = composed(["experiment=ram_mnist_28_2", "data=idx", f"data.root={squares}", *short])
    assert config["data"]["validation"] == 0
    train(config, tmp_path, "command")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.usefixtures("no_pictures", "without_type_checks")
@pytest.mark.parametrize("estimator", options("estimator"))
@pytest.mark.parametrize("model", ESTIMATING)
def test_model_trains_with_every_estimator_or_names_those_it_has(model, estimator, tiny, composed, tmp_path):
    number = ["estimator.baseline=0.5"] if estimator == "constant" else []
    length = ["model.n_steps=null"] if model == "policy_gradient" else []  # whole episodes where none may be cut
    if (model, estimator) == ("policy_gradient", "nvil"):
        length += ["model.normalize_advantage=false", "model.ent_coef=0"]  # which its running scale takes the place of
    config = composed(tiny(model, f"estimator={estimator}", *number, *length, "trainer.max_epochs=1"))
    if model not in KNOWN_TO.get(estimator, [model]):
        with pytest.raises(ValueError, match=f"there is no baseline '{estimator}'; choose one of"):
            make_experiment(config)
    elif model == "bbvi" and estimator in WITH_NETWORKS:
        with pytest.raises(ValueError, match="a learned baseline"):
            make_experiment(config)
    else:
        assert train(config, tmp_path, "command").metrics


def test_estimator_choice_is_named_after_its_baseline_or_a_paper(composed):
    chosen = {name: composed(["model=sbn", f"estimator={name}"])["estimator"] for name in ESTIMATORS}
    assert {name: options["baseline"] for name, options in chosen.items()} == {
        name: "learned_moving_average" if name == "nvil" else name for name in ESTIMATORS
    }
    assert (chosen["nvil"]["decay"], chosen["nvil"]["scale"]) == (0.8, True)


@pytest.mark.parametrize("logger", options("logger"))
def test_logger_does_not_change_the_run(model, logger, tiny, composed):
    assert config_hash(composed(tiny(model, f"logger={logger}"))) == config_hash(composed(tiny(model)))
