import pytest
from omegaconf import OmegaConf

from zoo.cli._schemas import DATA, MODELS, Choice, check_config, find_choice, instantiate, known_options


class TestSchema:
    def test_schema_has_the_names_types_and_defaults_of_a_signature(self):
        def model(rate: float, depth: int = 2, classes: tuple[str, ...] = ()) -> None: ...

        options = OmegaConf.structured(Choice(model, model).schema)
        assert OmegaConf.missing_keys(options) == {"rate"}
        assert options.depth == 2
        assert options._target_ == Choice(model, model).target
        options.rate = 1
        assert options.rate == 1.0
        with pytest.raises(Exception, match="could not be converted to Float"):
            options.rate = "banana"

    def test_schema_leaves_out_injected_arguments(self):
        def model(rate: float = 0.1, classes: tuple[str, ...] = (), image_shape: tuple[int, int, int] = (1, 2, 3)): ...

        assert OmegaConf.structured(Choice(model, model).schema).keys() == {"_target_", "rate"}


class TestInstantiate:
    def test_target_in_the_table_is_instantiated(self, squares):
        assert instantiate({"_target_": "zoo.data.idx.load_idx", "root": str(squares)}).name == "squares"

    @pytest.mark.parametrize(
        "name",
        [
            "os.system",
            "builtins.eval",
            "zoo.data.load_idx",
            "zoo.cli._schemas.instantiate",
            "",
            None,
            "zoo.data.idx.read_idx",
        ],
    )
    def test_target_outside_the_table_is_refused(self, name):
        with pytest.raises(
            ValueError, match=r"_target_ .* may not be instantiated; choose a model and data from configs/"
        ):
            instantiate({"_target_": name, "root": "x"})

    def test_target_outside_the_table_is_not_imported(self, tmp_path, monkeypatch):
        (tmp_path / "sprung.py").write_text("raise SystemError('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ValueError, match="may not be instantiated"):
            instantiate({"_target_": "sprung.anything"})

    def test_unknown_option_is_named(self, squares):
        with pytest.raises(ValueError, match=r"zoo\.data\.idx\.load_idx has no option color, size"):
            instantiate({"_target_": "zoo.data.idx.load_idx", "root": str(squares), "size": 3, "color": "red"})

    @pytest.mark.parametrize("choice", [*MODELS.values(), *DATA.values()])
    def test_every_model_and_data_set_is_found_by_its_target(self, choice):
        assert find_choice({"_target_": choice.target}) is choice


class TestCheckConfig:
    @pytest.mark.parametrize("model", MODELS)
    def test_composed_configurations_are_valid(self, model, composed):
        check_config(composed([f"model={model}"]))

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda config: config.pop("trainer"), "trainer missing"),
            (lambda config: config.update(trainer=3), "trainer must hold options, got 3"),
            (lambda config: config.update(estimator="nvil"), "estimator must hold options, got 'nvil'"),
            (lambda config: config.update(sed=1), "there is no option sed"),
            (
                lambda config: config.update(seed="${oc.env:SEED}"),
                r"seed must be .*, got '\$\{oc.env:SEED\}'",
            ),
            (lambda config: config["model"].update(lrr=1), "there is no option model.lrr"),
            (lambda config: config["model"].update(lr=None), "model.lr must be a number, got null"),
            (lambda config: config["model"].update(lr=-1.0), "model.lr must be above 0, got -1.0"),
            (lambda config: config["model"].update(_target_="os.system"), "'os.system' may not be instantiated"),
            (lambda config: config["trainer"].update(max_epochs=True), "max_epochs must be a whole number or null"),
        ],
    )
    def test_invalid_configuration_is_refused(self, change, complaint, composed):
        config = composed(["model=ram"])
        change(config)
        with pytest.raises(ValueError, match=complaint):
            check_config(config)


def test_every_option_of_every_model_has_a_type_and_the_composed_value_as_its_default(composed):
    for model in MODELS:
        known = known_options(composed([f"model={model}"]))
        assert {"seed", "trainer.max_epochs", "logger.project", "model.lr"} <= known.keys()
        for option in known.values():
            option.check(option.default)
