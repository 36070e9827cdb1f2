from pathlib import Path

import pytest

from zoo.inference.programs._program import posterior_folder


def test_posterior_has_own_folder_in_data_folder():
    assert posterior_folder(Path("data"), "coin") == Path("data/posteriordb/coin")
    assert posterior_folder(Path("~/data"), "coin") == Path.home() / "data/posteriordb/coin"


def test_missing_data_folder_raises_with_remedy():
    with pytest.raises(FileNotFoundError, match=r"coin are looked for in .*, but ZOO_DATA is not set"):
        posterior_folder(None, "coin")
