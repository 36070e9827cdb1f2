from pathlib import Path

import pytest

from examples.patients.labs import load_pbc
from zoo.data import load_flickr8k, load_idx, load_image_folder, load_karpathy
from zoo.data._paths import expand_user


def test_tilde_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/images") == tmp_path / "images"
    assert expand_user(Path("~")) == tmp_path


@pytest.mark.parametrize("path", ["a/~/b", "images~", "/images"])
def test_other_paths_are_unchanged(path):
    assert expand_user(path) == Path(path)


@pytest.mark.parametrize(
    "load", [load_flickr8k, load_idx, load_image_folder, load_karpathy, lambda root: load_pbc(Path(root))]
)
def test_unknown_home_folder_raises(load):
    with pytest.raises(FileNotFoundError, match=r"^the home folder at the start of ~nobody-of-this-name/data is unk"):
        load("~nobody-of-this-name/data")
