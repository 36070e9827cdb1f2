import os

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from zoo.plotting._saving import save_figure, write_atomically


def curve() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_axes((0.2, 0.2, 0.7, 0.7)).plot([1, 2])
    return figure


def test_resolution_is_fixed(tmp_path):
    figure = curve()
    figure.set_dpi(33)
    save_figure(figure, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
        assert image.size == (400, 200)


def test_file_does_not_depend_on_the_users_style(tmp_path):
    save_figure(curve(), tmp_path / "one.png")
    with matplotlib.rc_context({"savefig.facecolor": "red", "savefig.bbox": "tight"}):
        save_figure(curve(), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_path_may_be_a_string_and_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    save_figure(curve(), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path) == ["curve.png"]


def test_other_suffix_raises(tmp_path):
    with pytest.raises(ValueError, match=r"^path must end in \.png, got .*curve\.pdf$"):
        save_figure(curve(), tmp_path / "curve.pdf")


def test_missing_folder_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*nowhere to save curve.png in"):
        save_figure(curve(), tmp_path / "nowhere" / "curve.png")


@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_failure_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, broken):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    if broken == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match=r"disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["curve.png"]


def test_old_file_is_kept_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    replace, seen = os.replace, []

    def watch(source, target):
        seen.append((path.read_bytes(), source.read_bytes(), source.parent))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    write_atomically(path, b"new")
    assert seen == [(b"old", b"new", tmp_path)]
    assert path.read_bytes() == b"new"
