import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from scipy.io import loadmat
from torch import Tensor

from zoo.data._paths import expand_user
from zoo.data.images import DatasetUnavailableError, ImageData, ImageSet

SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
NUM_PIXELS = 28 * 28
CURE = "replace it with an intact copy"


def load_binarized_mnist() -> ImageData:
    """Load statically binarized MNIST: 50,000 training, 10,000 validation and 10,000 test digits.

    The digits of Salakhutdinov & Murray, "On the quantitative analysis of deep belief networks", 2008: every pixel is
    0 or 255, sampled once with its gray level as probability. There are no labels. The files are text as published by
    Larochelle, one digit per line, or MATLAB files with the matrix ``X``.

    Raises:
        DatasetUnavailableError: the files are not in ``$ZOO_DATA/binarized_mnist``.
        ValueError: a file is damaged.

    Example:
        >>> data = load_binarized_mnist()  # doctest: +SKIP
        >>> len(data.train), len(data.validation), data.image_shape  # doctest: +SKIP
        (50000, 10000, (1, 28, 28))
    """
    folder = find_binarized_mnist()
    load = partial(_read_split, folder)
    return ImageData("binarized_mnist", load("train"), load("valid"), partial(load, "test"), ("digit",), (0.0,))


def find_binarized_mnist() -> Path:
    """Return the folder with the three files of statically binarized MNIST.

    Raises:
        DatasetUnavailableError: a file is missing, or ``$ZOO_DATA`` is not set.

    Example:
        >>> find_binarized_mnist()  # doctest: +SKIP
        PosixPath('/data/binarized_mnist')
    """
    names = ", ".join(_path(Path(), split).name for split in SIZES)
    root = os.environ.get("ZOO_DATA")
    if not root:
        raise DatasetUnavailableError(
            f"statically binarized MNIST ({names}) is expected in $ZOO_DATA/binarized_mnist, but ZOO_DATA is not set"
        )
    folder = expand_user(root) / "binarized_mnist"
    if missing := [path.name for split in SIZES if not (path := _path(folder, split)).is_file()]:
        raise DatasetUnavailableError(
            f"{folder} does not contain {', '.join(missing)}; put {names} there, or set ZOO_DATA to its parent folder"
        )
    return folder


def _path(folder: Path, split: str) -> Path:
    return folder / f"binarized_mnist_{split}.amat"


def _read_split(folder: Path, split: str) -> ImageSet:
    """Read a set, with 0 for every label."""
    pixels = _read_pixels(_path(folder, split), SIZES[split])
    return ImageSet((255 * pixels).reshape(-1, 1, 28, 28), torch.zeros(len(pixels), dtype=torch.long))


def _read_pixels(path: Path, rows: int) -> UInt8[Tensor, "n 784"]:
    """Read a row of 0 and 1 for each digit, from text or from a MATLAB file."""
    with path.open("rb") as file:
        start = file.read(1000)
    is_text = bool(start.strip()) and not start.translate(None, b"0123456789.eE+- \t\r\n")
    dtype = np.float32 if b"." in start else np.uint8  # parsing as integers is ten times faster
    try:
        pixels = np.loadtxt(path, dtype, comments=None, ndmin=2, encoding="latin1") if is_text else loadmat(path)["X"]
    except KeyError as error:
        raise ValueError(f"{path} has no matrix X; {CURE}") from error
    except Exception as error:  # the readers raise all kinds of errors on a damaged file
        kind = "text with one digit per line" if is_text else "a MATLAB file"
        raise ValueError(f"{path} cannot be read as {kind} ({error}); {CURE}") from error
    if pixels.shape != (rows, NUM_PIXELS) or not ((pixels == 0) | (pixels == 1)).all():
        raise ValueError(
            f"{path} must contain {rows:,} rows of {NUM_PIXELS} zeros and ones, got "
            f"{' × '.join(map(str, pixels.shape))} values from {pixels.min()} to {pixels.max()}; {CURE}"
        )
    return torch.from_numpy(pixels.astype("uint8"))
