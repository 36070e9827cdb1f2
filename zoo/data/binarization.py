from collections.abc import Iterator

import torch
from jaxtyping import UInt8
from numpy.random import SeedSequence
from torch import Tensor

from zoo.data.batches import Batches
from zoo.data.images import ImageSet, LabeledImages

Images = UInt8[Tensor, "n channels height width"]


def is_binary(images: Images) -> bool:
    """Return whether every pixel is 0 or 255, as after a static binarization.

    Example:
        >>> is_binary(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
        True
    """
    return not ((images != 0) & (images != 255)).any()


def _binarize(images: Images, seed: int, *key: int) -> Images:
    """Return images of 0 and 255, in which each pixel is sampled with its gray level as the probability of 255.

    Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016. Binary images are returned unchanged.
    The samples depend on ``seed`` and ``key`` only.
    """
    mixed = SeedSequence(seed, spawn_key=key).generate_state(1, "uint64").item()
    noise = torch.empty(images.shape).uniform_(0, 255, generator=torch.Generator().manual_seed(mixed))
    return 255 * (noise < images).to(torch.uint8)


def binarize_set(data: ImageSet, seed: int = 0) -> ImageSet:
    """Return a set binarized once with a fixed seed.

    Example:
        >>> data = ImageSet(torch.full((2, 1, 8, 8), 99, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> torch.equal(binarize_set(data).images, binarize_set(data).images)
        True
    """
    return ImageSet(_binarize(data.images, seed), data.labels)


class BinarizedBatches(Batches):
    """Batches whose pixels are sampled anew each time an image is yielded (dynamic binarization).

    The samples depend only on seed, epoch, rank and position in the epoch: a resumed pass yields the same samples.

    Example:
        >>> gray = ImageSet(torch.full((4, 1, 8, 8), 99, dtype=torch.uint8), torch.tensor([3, 1, 4, 1]))
        >>> [is_binary(images) for images, labels in BinarizedBatches(gray, batch_size=2, seed=1)]
        [True, True]
    """

    def __iter__(self) -> Iterator[LabeledImages]:
        for images, labels in super().__iter__():
            yield _binarize(images, self.seed or 0, self.epoch, self.rank, self.num_yielded), labels
