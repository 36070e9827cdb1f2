from pathlib import Path

import pytest

from examples.patients.labs import load_pbc
from zoo.data import load_idx, load_image_folder
from zoo.data.paths import user_path


def test_tilde_becomes_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/images") == tmp_path / "images"
    assert user_path(Path("~")) == tmp_path


@pytest.mark.parametrize("path", ["a/~/b", "images~", "/images"])
def test_other_paths_stay_as_they_are(path):
    assert user_path(path) == Path(path)


@pytest.mark.parametrize("load", [load_idx, load_image_folder, lambda root: load_pbc(Path(root))])
def test_home_of_an_unknown_user_is_refused_in_a_sentence(load):
    with pytest.raises(FileNotFoundError, match=r"^~nobody-of-this-name/data begins with a user whose home folder"):
        load("~nobody-of-this-name/data")
