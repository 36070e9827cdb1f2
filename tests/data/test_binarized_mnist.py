import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from zoo.data import DatasetUnavailableError, binarized_mnist, find_binarized_mnist, is_binary, load_binarized_mnist

ZOO_DATA = os.environ.get("ZOO_DATA", "")
HAVE_FILES = all(Path(ZOO_DATA, "binarized_mnist", f"binarized_mnist_{part}.amat").is_file() for part in
                 binarized_mnist.SIZES)  # fmt: skip
SMALL = {"train": 5, "valid": 2, "test": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with three small files of noise."""
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    monkeypatch.setattr(binarized_mnist, "SIZES", SMALL)
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for part, rows in SMALL.items():
        write(folder, part, noise.integers(0, 2, (rows, 784), dtype=np.uint8))
    return folder


def write(folder, part, pixels, name="X"):
    with (folder / f"binarized_mnist_{part}.amat").open("wb") as file:
        savemat(file, {name: pixels})


def pixels_of(folder, part):
    return torch.from_numpy(loadmat(folder / f"binarized_mnist_{part}.amat")["X"])


def test_sets_are_read_from_their_files(folder):
    data = load_binarized_mnist()
    assert data.name == "binarized_mnist"
    assert data.image_shape == (1, 28, 28)
    for part, images in (("train", data.train), ("valid", data.validation), ("test", data.load_test())):
        assert len(images) == SMALL[part]
        assert is_binary(images.images)
        assert torch.equal(images.images.flatten(1) // 255, pixels_of(folder, part))


def test_test_set_is_read_by_load_test_only(folder):
    data = load_binarized_mnist()
    (folder / "binarized_mnist_test.amat").write_bytes(b"")
    with pytest.raises(ValueError, match="binarized_mnist_test"):
        data.load_test()


def as_text(pixels, zero="0", one="1", separator=" ", end="\n"):
    """Text of an .amat file: a line for each row."""
    rows = [separator.join(one if pixel else zero for pixel in row) for row in pixels.tolist()]
    return "".join(row + end for row in rows)


class TestText:
    @pytest.mark.parametrize(
        "style",
        [
            pytest.param({}, id="as published"),
            pytest.param({"end": " \n"}, id="blank at the end of a line"),
            pytest.param({"end": "\r\n"}, id="lines of Windows"),
            pytest.param({"separator": "\t"}, id="tabs"),
            pytest.param({"zero": "0.0", "one": "1.0"}, id="with a decimal"),
            pytest.param({"zero": f"{0:.18e}", "one": f"{1:.18e}"}, id="as numpy.savetxt writes"),
        ],
    )
    def test_text_and_matlab_files_have_the_same_digits(self, folder, style):
        path = folder / "binarized_mnist_train.amat"
        expected = pixels_of(folder, "train")
        path.write_text(as_text(expected, **style), newline="")
        assert torch.equal(load_binarized_mnist().train.images.flatten(1) // 255, expected)

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda text: text[:-800], "cannot be read as text with one digit per line"),
            (lambda text: text + "x", "cannot be read as text with one digit per line"),
            (
                lambda text: text[: text.rindex("\n", 0, -1) + 1],
                "must contain 5 rows of 784 zeros and .* got 4 × 784",
            ),
            (
                lambda text: text.replace("1", "2"),
                "must contain .* got 5 × 784 values from 0 to 2",
            ),
            (lambda text: text.replace("1", "nan"), "cannot be read"),
        ],
    )
    def test_damaged_text_raises_with_a_cure(self, folder, spoil, reason):
        path = folder / "binarized_mnist_train.amat"
        path.write_text(spoil(as_text(pixels_of(folder, "train"))))
        with pytest.raises(ValueError, match=rf"train\.amat {reason}.*replace it with an intact copy"):
            load_binarized_mnist()


class TestMissing:
    def test_named_pipe_counts_as_missing(self, folder):
        (folder / "binarized_mnist_valid.amat").unlink()
        os.mkfifo(folder / "binarized_mnist_valid.amat")
        with pytest.raises(DatasetUnavailableError, match="does not contain binarized_mnist_valid"):
            find_binarized_mnist()

    def test_missing_file_is_named_with_its_folder(self, folder):
        (folder / "binarized_mnist_valid.amat").unlink()
        with pytest.raises(
            DatasetUnavailableError, match=rf"{folder} does not contain binarized_mnist_valid\.amat; put"
        ):
            find_binarized_mnist()

    def test_error_names_zoo_data_if_it_is_not_set(self, monkeypatch):
        monkeypatch.delenv("ZOO_DATA", raising=False)
        with pytest.raises(DatasetUnavailableError, match="ZOO_DATA is not set"):
            load_binarized_mnist()


class TestDamaged:
    @pytest.mark.parametrize("content", [b"", b"text", b"MATLAB 5.0 MAT-file".ljust(128, b" ") + b"\x00\x01IM" * 9])
    def test_unreadable_file_is_named(self, content, folder):
        (folder / "binarized_mnist_train.amat").write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.amat cannot be read as a MATLAB file.*intact copy"):
            load_binarized_mnist()

    def test_truncated_file_is_named(self, folder):
        path = folder / "binarized_mnist_train.amat"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"train\.amat cannot be read"):
            load_binarized_mnist()

    def test_file_without_the_matrix_is_named(self, folder):
        write(folder, "train", np.zeros((5, 784)), name="Y")
        with pytest.raises(ValueError, match="has no matrix X"):
            load_binarized_mnist()

    @pytest.mark.parametrize(
        "pixels", [np.zeros((4, 784)), np.zeros((5, 783)), np.full((5, 784), 2), np.full((5, 784), np.nan)]
    )
    def test_file_with_other_values_is_named(self, pixels, folder):
        write(folder, "train", pixels)
        with pytest.raises(ValueError, match="must contain 5 rows of 784 zeros and ones, got"):
            load_binarized_mnist()


@pytest.mark.skipif(not HAVE_FILES, reason="needs the real files: set ZOO_DATA to the folder above binarized_mnist")
def test_real_digits_have_the_known_means(monkeypatch):
    data = load_binarized_mnist()
    means = [part.images.double().mean().item() / 255 for part in (data.train, data.validation, data.load_test())]
    assert [round(mean, 4) for mean in means] == [0.1306, 0.1311, 0.1325]
    assert [len(data.train), len(data.validation)] == [50_000, 10_000]
