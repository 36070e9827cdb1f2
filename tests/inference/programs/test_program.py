from pathlib import Path

import pytest

from zoo.inference.programs._program import posterior_folder


def test_a_posterior_has_a_folder_of_its_own_below_the_data():
    assert posterior_folder(Path("data"), "coin") == Path("data/posteriordb/coin")
    assert posterior_folder(Path("~/data"), "coin") == Path.home() / "data/posteriordb/coin"


def test_without_a_folder_of_data_it_is_asked_for():
    with pytest.raises(FileNotFoundError, match=r"coin are looked for in .*, but ZOO_DATA is not set"):
        posterior_folder(None, "coin")
