"""Labeled and captioned images: data sets, batches, binarization. Reference posteriors of posteriordb."""

from zoo.data._posteriordb import ReferenceMoments
from zoo.data.batches import Batches
from zoo.data.binarization import BinarizedBatches, binarize_set, is_binary
from zoo.data.binarized_mnist import find_binarized_mnist, load_binarized_mnist
from zoo.data.captioned_scenes import load_captioned_scenes
from zoo.data.captions import CaptionData, CaptionSet, ImageFiles
from zoo.data.flickr8k import find_flickr8k, load_flickr8k
from zoo.data.idx import load_idx, read_idx
from zoo.data.image_folder import load_image_folder
from zoo.data.images import DatasetUnavailableError, ImageData, ImageSet
from zoo.data.karpathy import load_karpathy
from zoo.data.mnist import find_mnist, load_mnist
from zoo.data.mnist_5k import load_mnist_5k
from zoo.data.vocabulary import Vocabulary, tokenize

__all__ = [
    "Batches",
    "BinarizedBatches",
    "CaptionData",
    "CaptionSet",
    "DatasetUnavailableError",
    "ImageData",
    "ImageFiles",
    "ImageSet",
    "ReferenceMoments",
    "Vocabulary",
    "binarize_set",
    "find_binarized_mnist",
    "find_flickr8k",
    "find_mnist",
    "is_binary",
    "load_binarized_mnist",
    "load_captioned_scenes",
    "load_flickr8k",
    "load_idx",
    "load_image_folder",
    "load_karpathy",
    "load_mnist",
    "load_mnist_5k",
    "read_idx",
    "tokenize",
]
