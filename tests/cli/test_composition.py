import logging

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException

from zoo.cli import _composition as composition
from zoo.cli._composition import (
    check_estimator_is_used,
    load_run_config,
    register,
    replace_unavailable_data,
    resolve,
    run_folder,
)
from zoo.cli._config_groups import configs_dir
from zoo.cli._schemas import instantiate
from zoo.data import DatasetUnavailableError


class TestComposition:
    @pytest.fixture(autouse=True)
    def registered(self):
        register()

    @pytest.mark.parametrize(
        ("override", "named"),
        [
            ("model.lrr=1", "model.lrr"),
            ("model.lr=banana", "model.lr=banana"),
            ("model.num_glimpses=1.5", "model.num_glimpses=1.5"),
            ("trainer.max_epoch=1", "trainer.max_epoch"),
            ("trainer.batch_size=big", "trainer.batch_size=big"),
            ("data.rot=x", "data.rot"),
            ("sed=1", "sed"),
        ],
    )
    def test_wrong_key_or_type_is_named(self, override, named, composed):
        with pytest.raises(ConfigCompositionException, match=rf"(?s){named}"):
            composed(["model=ram", override])

    def test_unknown_group_is_named(self, composed):
        with pytest.raises((ConfigCompositionException, MissingConfigException), match="modell"):
            composed(["modell=ram"])

    def test_unknown_key_added_with_plus_is_refused_at_instantiation(self, composed, tiny):
        with pytest.raises(ValueError, match="has no option lrr"):
            instantiate(composed(tiny("ram", "+model.lrr=1"))["model"])

    def test_missing_values_are_named(self, composed):
        with pytest.raises(ValueError, match=r"data\.root must be given, such as data\.root=\.\.\."):
            composed(["model=ram", "data=idx"])

    def test_missing_model_is_answered_with_the_models(self, composed):
        with pytest.raises(ValueError, match=r"choose a model: model=.*ram"):
            composed(["seed=2"])

    def test_model_overrides_data_and_trainer_and_the_user_overrides_the_model(self, composed):
        assert composed(["model=ram"])["data"]["_target_"] == "zoo.data.mnist.load_mnist"
        assert composed(["model=ram", "data=mnist_5k"])["data"]["_target_"] == "zoo.data.mnist_5k.load_mnist_5k"
        assert composed(["model=ram", "trainer.max_epochs=7", "trainer.batch_size=9"])["trainer"] == {
            **composed(["model=ram"])["trainer"],
            "max_epochs": 7,
            "batch_size": 9,
        }


class TestRunFolder:
    def test_run_folder_is_the_one_to_resume(self):
        assert run_folder("runs/ram/a", None, "resume=runs/ram/a") == "runs/ram/a"

    def test_new_run_folder_is_named_after_model_time_and_overrides(self, monkeypatch):
        monkeypatch.setattr(composition.time, "strftime", lambda form: "2026-01-01_00-00-00")
        one, two = (run_folder(None, "ram", overrides) for overrides in ("seed=1", "seed=2"))
        assert one.startswith("runs/ram/2026-01-01_00-00-00-")
        assert one != two
        assert one == run_folder(None, "ram", "seed=1")


class TestReplaceUnavailableData:
    """MNIST where it can be had, else the digits that are at hand."""

    FORCED = "zoo.data.mnist_5k.load_mnist_5k"

    @pytest.fixture
    def settle(self, monkeypatch):
        """The configuration a command line leads to, with or without MNIST and its static binarization."""
        register()

        def run(overrides, mnist, static=False):
            def find():
                if not mnist:
                    raise DatasetUnavailableError("no MNIST, no network")

            def find_binarized():
                if not static:
                    raise DatasetUnavailableError("no static binarization")

            monkeypatch.setattr(composition, "find_mnist", find)
            monkeypatch.setattr(composition, "find_binarized_mnist", find_binarized)
            with initialize_config_dir(str(configs_dir()), version_base="1.3"):
                choices = compose("train", overrides, return_hydra_config=True).hydra.runtime.choices
                return resolve(replace_unavailable_data(compose("train", overrides), choices, overrides))

        return run

    @pytest.mark.parametrize("overrides", [["model=ram"], ["model=ram", "data=mnist"], ["experiment=ram_mnist_28_2"]])
    def test_configuration_is_unchanged_if_mnist_is_available(self, overrides, settle, composed, caplog):
        assert settle(overrides, mnist=True) == composed(overrides)
        assert not caplog.records

    @pytest.mark.parametrize("overrides", [["model=ram"], ["model=ram", "data=mnist"]])
    def test_without_mnist_the_experiment_for_mnist_5k_is_used(self, overrides, settle, composed):
        assert settle(overrides, mnist=False) == composed(["model=ram", "experiment=ram_mnist_5k"])
        assert settle(overrides, mnist=False)["data"]["_target_"] == self.FORCED

    def test_experiment_for_mnist_5k_differs_from_the_default(self, composed):
        assert composed(["experiment=ram_mnist_5k"])["trainer"] != composed(["model=ram"])["trainer"]

    def test_overrides_of_the_user_still_apply_to_fallback_data(self, settle):
        overrides = ["model=ram", "model.weight_decay=0.5", "trainer.max_epochs=3", "data.validation=100", "seed=9"]
        settled = settle(overrides, mnist=False)
        assert (settled["model"]["weight_decay"], settled["trainer"]["max_epochs"], settled["seed"]) == (0.5, 3, 9)
        assert settled["data"] == {"_target_": self.FORCED, "validation": 100, "split_seed": 0}
        assert settled["model"]["lr"] == 0.001  # the recipe's, where the user set nothing

    def test_without_mnist_an_experiment_changes_only_its_data(self, settle, composed, differences):
        overrides = ["experiment=ram_mnist_28_2", "seed=4"]
        changed = differences(settle(overrides, mnist=False), composed(overrides))
        assert changed == ["/data/_target_"]

    def test_configuration_is_unchanged_if_static_mnist_is_available(self, settle, composed, caplog):
        assert settle(["model=sbn"], mnist=False, static=True) == composed(["model=sbn"])
        assert not caplog.records

    def test_without_static_mnist_digits_are_binarized_dynamically_with_a_warning(self, settle, composed, caplog):
        with caplog.at_level(logging.WARNING):
            assert settle(["model=sbn"], mnist=True) == composed(["model=sbn", "data=mnist"])
        (warning,) = caplog.messages
        assert "no static binarization" in warning
        assert "Using mnist instead, with dynamic binarization" in warning
        assert "not comparable with any on the static binarization" in warning

    def test_without_any_mnist_the_5k_digits_are_binarized(self, settle, composed, caplog):
        assert settle(["model=sbn", "seed=3"], mnist=False) == composed(["experiment=sbn_mnist_5k", "seed=3"])
        assert len(caplog.messages) == 2

    def test_fallback_data_are_announced(self, settle, caplog):
        with caplog.at_level(logging.WARNING):
            settle(["model=ram"], mnist=False)
        (warning,) = caplog.messages
        assert "no MNIST, no network" in warning
        assert "mnist-5k" in warning
        assert "not comparable with any on MNIST" in warning

    def test_other_data_do_not_need_mnist(self, settle, composed, tiny, caplog):
        for overrides in (["model=ram", "data=mnist_5k"], ["experiment=ram_mnist_5k"], tiny("ram")):
            assert settle(overrides, mnist=False) == composed(overrides)
        assert not caplog.records


class TestCheckEstimatorIsUsed:
    @pytest.fixture
    def check(self):
        register()

        def run(*overrides):
            with initialize_config_dir(str(configs_dir()), version_base="1.3"):
                check_estimator_is_used(compose("train", list(overrides)), list(overrides))

        return run

    def test_estimator_without_effect_is_an_error(self, check):
        with pytest.raises(ValueError, match="this model does not use an estimator: remove estimator=reinforce"):
            check("model=q_learning", "estimator=reinforce")

    def test_estimator_that_the_model_uses_is_accepted(self, check):
        check("model=ram", "estimator=reinforce")
        check("model=policy_gradient", "estimator=nvil")
        check("model=q_learning", "seed=3")


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "UnicodeDecodeError"),
        (b"[1, 2]", "AttributeError"),
        (b"{", "ParserError"),
        (b"{}", "data, estimator, logger, model, resume, seed, trainer missing"),
    ],
)
def test_damaged_configuration_of_a_run_is_an_error_with_the_reason(content, reason, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"config\.yaml is damaged \({reason}\); the run cannot be resumed"):
        load_run_config(tmp_path)
