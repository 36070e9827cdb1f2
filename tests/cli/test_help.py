import pytest

from zoo.cli._composition import compose_options, register
from zoo.cli._config_groups import group_choices, summary
from zoo.cli._help import help_text, options_help
from zoo.cli._schemas import MODELS


class TestHelp:
    def test_help_lists_every_model_with_a_summary(self):
        lines = help_text().splitlines()
        for name in MODELS:
            (line,) = [line for line in lines if line.startswith(f"  model={name} ")]
            assert len(line.split(maxsplit=1)[1]) > 20

    def test_help_lists_every_experiment_and_choice(self):
        text = help_text()
        assert all(f"  {name} " in text for name in group_choices("experiment"))
        assert all(name in text for group in ("data", "estimator", "logger") for name in group_choices(group))

    @pytest.mark.parametrize("group", ["model", "data", "estimator", "trainer", "logger", "experiment"])
    def test_every_configuration_has_a_summary_of_one_line(self, group):
        assert group_choices(group)
        for name in group_choices(group):
            assert 0 < len(summary(group, name)) <= 110


class TestOptionsHelp:
    @pytest.mark.parametrize("model", MODELS)
    def test_help_lists_every_option_of_a_model_with_default_type_and_description(self, model):
        register()
        text = options_help([f"model={model}"])
        for option in compose_options((f"model={model}",)).values():
            assert option.description, option.key
            assert f"{option.key}=" in text
        assert "(a number, above 0" in text
