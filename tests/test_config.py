from dataclasses import dataclass, field

import pytest
from omegaconf import MISSING, OmegaConf

from zoo import config
from zoo.config import (
    DATA,
    MODELS,
    EvaluateConfig,
    ReproduceConfig,
    arguments,
    build,
    schema,
    target,
)


@dataclass
class Options:
    needed: str = MISSING
    count: int = 3
    names: list[int] = field(default_factory=lambda: [1])


class TestArguments:
    def test_are_read_into_their_types(self):
        read = arguments(Options, ["needed=a", "names=[2,3]"])
        assert read == Options("a", 3, [2, 3])
        assert arguments(ReproduceConfig, ["paper=ram", "rows=[6,random]"]).rows == ["6", "random"]

    def test_an_unknown_key_is_named_beside_the_known_ones(self):
        with pytest.raises(ValueError, match=r"chekpoint.*; the arguments are checkpoint=\.\.\."):
            arguments(EvaluateConfig, ["chekpoint=a"])

    def test_so_is_the_key_of_a_value_of_the_wrong_type(self):
        with pytest.raises(ValueError, match=r"'many'.*the arguments are needed=\.\.\., count=\.\.\., names=\.\.\."):
            arguments(Options, ["needed=a", "count=many"])

    def test_what_is_missing_is_named(self):
        with pytest.raises(ValueError, match=r"needed must be given: needed=\.\.\."):
            arguments(Options, [])


class TestSchema:
    def test_has_the_names_types_and_defaults_of_a_signature(self):
        def model(rate: float, depth: int = 2, classes: tuple[str, ...] = ()) -> None: ...

        options = OmegaConf.structured(schema(model, model))
        assert OmegaConf.missing_keys(options) == {"rate"}
        assert options.depth == 2
        assert options._target_ == target(model)
        options.rate = 1
        assert options.rate == 1.0
        with pytest.raises(Exception, match="could not be converted to Float"):
            options.rate = "banana"

    def test_leaves_out_what_other_groups_decide(self):
        def model(rate: float = 0.1, classes: tuple[str, ...] = (), image_shape: tuple[int, int, int] = (1, 2, 3)): ...

        assert OmegaConf.structured(schema(model, model)).keys() == {"_target_", "rate"}


class TestBuild:
    def test_calls_what_the_table_holds(self, squares):
        assert build({"_target_": "zoo.data.idx.load_idx", "root": str(squares)}).name == "squares"

    @pytest.mark.parametrize(
        "name",
        ["os.system", "builtins.eval", "zoo.data.load_idx", "zoo.config.build", "", None, "zoo.data.idx.read_idx"],
    )
    def test_refuses_all_else(self, name):
        with pytest.raises(ValueError, match=r"_target_ .* may not be built; choose a model and data from configs/"):
            build({"_target_": name, "root": "x"})

    def test_does_not_even_import_it(self, tmp_path, monkeypatch):
        (tmp_path / "sprung.py").write_text("raise SystemError('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ValueError, match="may not be built"):
            build({"_target_": "sprung.anything"})

    def test_names_options_that_do_not_exist(self, squares):
        with pytest.raises(ValueError, match=r"zoo\.data\.idx\.load_idx has no option colour, size"):
            build({"_target_": "zoo.data.idx.load_idx", "root": str(squares), "size": 3, "colour": "red"})

    def test_has_a_table_of_all_models_and_data(self):
        builders = {builder for builder, _ in config.BUILDERS.values()}
        assert builders == {*DATA.values(), *(builder for builder, _ in MODELS.values())}
        assert all(target(builder) == name for name, (builder, _) in config.BUILDERS.items())
