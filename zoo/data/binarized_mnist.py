import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from scipy.io import loadmat
from torch import Tensor

from zoo.data.images import ImageData, ImageSet
from zoo.data.paths import user_path

SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
PIXELS = 28 * 28
CURE = "replace it with an intact copy"


class BinarizedMnistUnavailable(FileNotFoundError):
    """The files of the static binarisation are not on this machine; the message says where they belong."""


def load_binarized_mnist() -> ImageData:
    """MNIST with each pixel drawn once and for all: 50,000 digits to train on, 10,000 to validate, 10,000 to test.

    Every pixel is 0 or 255, drawn from a Bernoulli of its grey level by Larochelle; the digits and the draws of
    Salakhutdinov & Murray, "On the quantitative analysis of deep belief networks", 2008. The files hold no labels. They
    are text as Larochelle published them, a digit a line, or MATLAB files with the matrix ``X``.

    Raises:
        BinarizedMnistUnavailable: there are no such files in ``$ZOO_DATA/binarized_mnist``.
        ValueError: a file is damaged.

    Example:
        >>> data = load_binarized_mnist()  # doctest: +SKIP
        >>> len(data.train), len(data.validation), data.image_shape  # doctest: +SKIP
        (50000, 10000, (1, 28, 28))
    """
    folder = find_binarized_mnist()
    load = partial(read_part, folder)
    return ImageData("binarized_mnist", load("train"), load("valid"), partial(load, "test"), ("digit",), (0.0,))


def find_binarized_mnist() -> Path:
    """Folder with the three files of the static binarisation.

    Raises:
        BinarizedMnistUnavailable: one is missing, or ``$ZOO_DATA`` is not set.
    """
    names = ", ".join(path_of(Path(), part).name for part in SIZES)
    root = os.environ.get("ZOO_DATA")
    if not root:
        raise BinarizedMnistUnavailable(
            f"the static binarisation of MNIST ({names}) is looked for in $ZOO_DATA/binarized_mnist, but ZOO_DATA is "
            "not set"
        )
    folder = user_path(root) / "binarized_mnist"
    if missing := [path.name for part in SIZES if not (path := path_of(folder, part)).is_file()]:
        raise BinarizedMnistUnavailable(
            f"{folder} does not hold {', '.join(missing)}; put {names} there, or set ZOO_DATA to the folder above them"
        )
    return folder


def path_of(folder: Path, part: str) -> Path:
    """Path of one of the three files."""
    return folder / f"binarized_mnist_{part}.amat"


def read_part(folder: Path, part: str) -> ImageSet:
    """Read one of the three sets, with 0 for every label.

    Raises:
        ValueError: the file is damaged.
    """
    pixels = read_pixels(path_of(folder, part), SIZES[part])
    return ImageSet((255 * pixels).reshape(-1, 1, 28, 28), torch.zeros(len(pixels), dtype=torch.long))


def read_pixels(path: Path, rows: int) -> UInt8[Tensor, "n 784"]:
    """Read a row of 0 and 1 for each digit, from text or from the matrix ``X`` of a MATLAB file.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    with path.open("rb") as file:
        start = file.read(1000)
    is_text = bool(start.strip()) and not start.translate(None, b"0123456789.eE+- \t\r\n")
    # Whole numbers are read ten times faster as such.
    pixels = _read_text(path, np.float32 if b"." in start else np.uint8) if is_text else _read_matlab(path)
    if pixels.shape != (rows, PIXELS) or not ((pixels == 0) | (pixels == 1)).all():
        raise ValueError(
            f"{path} must hold {rows:,} rows of {PIXELS} zeros and ones, got {' × '.join(map(str, pixels.shape))}"
            f" values from {pixels.min()} to {pixels.max()}; {CURE}"
        )
    return torch.from_numpy(pixels.astype("uint8"))


def _read_text(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """Read numbers, separated by blanks.

    Raises:
        ValueError: there is something else, or rows differ in length.
    """
    try:
        return np.loadtxt(path, dtype=dtype, comments=None, ndmin=2, encoding="latin1")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as text with a digit a line ({error}); {CURE}") from error


def _read_matlab(path: Path) -> np.ndarray:
    """Read the matrix ``X``.

    Raises:
        ValueError: the file cannot be read, or has no such matrix.
    """
    try:
        return loadmat(path)["X"]
    except KeyError as error:
        raise ValueError(f"{path} holds no matrix X; {CURE}") from error
    except Exception as error:  # on a damaged file the reader raises whatever it stumbles over
        raise ValueError(f"{path} cannot be read as a MATLAB file ({error}); {CURE}") from error
