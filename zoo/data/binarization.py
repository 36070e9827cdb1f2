from collections.abc import Iterator

import torch
from jaxtyping import UInt8
from numpy.random import SeedSequence
from torch import Tensor

from zoo.data.batches import Batches
from zoo.data.images import ImageSet, LabelledImages

Images = UInt8[Tensor, "n channels height width"]


def is_binary(images: Images) -> bool:
    """Tell whether every pixel is black or white: the pictures were binarised once and for all.

    Example:
        >>> is_binary(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
        True
    """
    return not ((images != 0) & (images != 255)).any()


def binarize(images: Images, seed: int, *key: int) -> Images:
    """Draw each pixel as white with the probability of its grey level, else black: dynamic binarisation.

    Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016. What is black or white already stays so.

    Args:
        images: grey levels, 0 to 255.
        seed: of the draws; the global random state is neither used nor changed.
        key: further whole numbers that tell draws of one seed apart.

    Returns:
        Pictures of 0 and 255.

    Example:
        >>> binarize(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2), seed=0).flatten()
        tensor([  0, 255], dtype=torch.uint8)
    """
    mixed = SeedSequence(seed, spawn_key=key).generate_state(1, "uint64").item()
    noise = torch.empty(images.shape).uniform_(0, 255, generator=torch.Generator().manual_seed(mixed))
    return 255 * (noise < images).to(torch.uint8)


def binarized(data: ImageSet, seed: int = 0) -> ImageSet:
    """Binarise a set once, the same way every time.

    Example:
        >>> data = ImageSet(torch.full((2, 1, 8, 8), 99, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> torch.equal(binarized(data).images, binarized(data).images)
        True
    """
    return ImageSet(binarize(data.images, seed), data.labels)


class BinarizedBatches(Batches):
    """Batches whose pixels are drawn afresh each time a picture is given.

    The draws depend on seed, epoch, rank and place in the epoch alone: a pass that goes on in the middle of an epoch
    gives what it would have given.

    Example:
        >>> grey = ImageSet(torch.full((4, 1, 8, 8), 99, dtype=torch.uint8), torch.tensor([3, 1, 4, 1]))
        >>> [is_binary(images) for images, labels in BinarizedBatches(grey, batch_size=2, seed=1)]
        [True, True]
    """

    def __iter__(self) -> Iterator[LabelledImages]:
        for images, labels in super().__iter__():
            yield binarize(images, self.seed or 0, self.epoch, self.rank, self.given), labels
