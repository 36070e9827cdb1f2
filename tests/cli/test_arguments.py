from dataclasses import dataclass, field

import pytest
from omegaconf import MISSING

from zoo.cli._arguments import EvaluateConfig, ReproduceConfig, arguments_help, parse_arguments, path_field


@dataclass
class Options:
    """Options.

    Args:
        needed: without a default.
    """

    needed: str = MISSING
    count: int = 3
    rate: float = 0.5
    names: list[int] = field(default_factory=lambda: [1])
    place: str | None = path_field(None)


class TestArguments:
    def test_arguments_are_parsed_into_their_types(self):
        read = parse_arguments(Options, ["needed=a", "names=[2,3]"])
        assert read == Options("a", 3, 0.5, [2, 3])
        assert parse_arguments(ReproduceConfig, ["paper=ram", "rows=[6,random]"]).rows == ["6", "random"]

    def test_unknown_key_is_reported_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"chekpoint.*; the arguments are checkpoint=\.\.\."):
            parse_arguments(EvaluateConfig, ["chekpoint=a"])

    def test_value_of_wrong_type_is_reported_with_the_known_keys(self):
        with pytest.raises(ValueError, match=r"'many'.*the arguments are needed=\.\.\., count=\.\.\., rate"):
            parse_arguments(Options, ["needed=a", "count=many"])

    def test_missing_argument_is_reported(self):
        with pytest.raises(ValueError, match=r"needed must be given: needed=\.\.\."):
            parse_arguments(Options, [])

    @pytest.mark.parametrize(
        ("argument", "complaint"),
        [
            ("${nope}", r"there is no argument \$\{nope\}"),
            ("coutn=1", "did you mean count="),
            ("--count=1", "there is no argument --count.*did you mean count="),
            ("+count=1", "there is no argument"),
            ("count=99999999999999999999", "count must be a whole number"),
            ("count=${nope}", "count must be a whole number"),
            ("count=1.0", "count must be a whole number"),
            ("rate=nan", "rate must be a number, got nan"),
            ("names=1", r"names must be a list of whole numbers such as \[64,64\], got 1"),
            ("needed=", "needed must not be empty"),
            ("count", "there is no argument count"),
        ],
    )
    def test_invalid_argument_is_refused_in_a_sentence(self, argument, complaint):
        with pytest.raises(ValueError, match=complaint):
            parse_arguments(Options, ["needed=a", argument])

    def test_text_is_verbatim_and_home_is_expanded_in_paths(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/user")
        read = parse_arguments(Options, ["needed=a=b, ~'(ü${x}", "place=~/a b", "rate=1e-3"])
        assert (read.needed, read.place, read.rate) == ("a=b, ~'(ü${x}", "/home/user/a b", 0.001)


def test_help_lists_every_argument_with_default_and_description():
    text = arguments_help(Options, "A script.")
    assert text.startswith("A script.")
    for line in ("needed=required  (text)", "without a default.", "count=3  (a whole number)", "names=[1]"):
        assert line in text
