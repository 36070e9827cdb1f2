"""Pictures with labels, and the batches a model trains on."""

from zoo.data.batches import Batches
from zoo.data.binarization import BinarizedBatches, binarized, is_binary
from zoo.data.binarized_mnist import BinarizedMnistUnavailable, find_binarized_mnist, load_binarized_mnist
from zoo.data.idx import load_idx, read_idx
from zoo.data.image_folder import load_image_folder
from zoo.data.images import ImageData, ImageSet
from zoo.data.mnist import MnistUnavailable, find_mnist, load_mnist
from zoo.data.mnist_5k import load_mnist_5k

__all__ = [
    "Batches",
    "BinarizedBatches",
    "BinarizedMnistUnavailable",
    "ImageData",
    "ImageSet",
    "MnistUnavailable",
    "binarized",
    "find_binarized_mnist",
    "find_mnist",
    "is_binary",
    "load_binarized_mnist",
    "load_idx",
    "load_image_folder",
    "load_mnist",
    "load_mnist_5k",
    "read_idx",
]
