from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

LabeledImages = tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]


class DatasetUnavailableError(FileNotFoundError):
    """The files of a data set are missing and could not be downloaded; the message says where they belong.

    Example:
        >>> raise DatasetUnavailableError("put the four files into $ZOO_DATA/MNIST/raw")
        Traceback (most recent call last):
        zoo.data.images.DatasetUnavailableError: put the four files into $ZOO_DATA/MNIST/raw
    """


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images as two tensors.

    Example:
        >>> digits = ImageSet(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([7, 2, 1]))
        >>> images, labels = digits[torch.tensor([2, 0])]
        >>> images.shape, labels
        (torch.Size([2, 1, 28, 28]), tensor([1, 7]))
    """

    images: UInt8[Tensor, "n channels height width"]
    """Pixel values, 0 to 255."""
    labels: Int64[Tensor, " n"]
    """Class index of each image."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Int64[Tensor, " batch"]) -> LabeledImages:
        return self.images.index_select(0, index), self.labels.index_select(0, index)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training, validation and test set of labeled images.

    Example:
        >>> digits = ImageSet(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([7, 2, 1]))
        >>> data = ImageData("digits", digits, None, lambda: digits, tuple("0123456789"), (0.0,))
        >>> data.image_shape
        (1, 28, 28)
    """

    name: str
    """Short name for tables and folders, such as "mnist"."""
    train: ImageSet
    """Training set."""
    validation: ImageSet | None
    """Validation set, held out of the training images for model selection; None if nothing was held out."""
    load_test: Callable[[], ImageSet]
    """Loads the test set; a function, so that it is read once, by the final evaluation."""
    classes: tuple[str, ...]
    """Name of each class."""
    fill_value: tuple[float, ...]
    """Pixel value per channel outside the images, from 0 to 1."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def border_median(images: UInt8[Tensor, "n channels height width"]) -> tuple[float, ...]:
    """Return the median of the outermost pixels of all images, per channel, from 0 to 1.

    Example:
        >>> image = torch.full((1, 1, 3, 3), 51, dtype=torch.uint8)
        >>> image[..., 1, 1] = 255
        >>> border_median(image)
        (0.2,)
    """
    inside = torch.zeros(images.shape[2:], dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    border = images[..., ~inside].transpose(0, 1).flatten(1)
    return tuple(level / 255 for level in border.median(dim=1).values.tolist())


def split_validation(data: ImageSet, count: int | None, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """Split a set into training and validation set: see ``stratified_split``.

    Args:
        data: all images available for training.
        count: number of images to hold out; None for a tenth, rounded down; 0 for no validation set.
        seed: seed of the split, independent of the training seed.

    Raises:
        ValueError: ``count`` is negative, or a class would have no training images left.

    Example:
        >>> digits = ImageSet(torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.arange(20) % 2)
        >>> train, validation = split_validation(digits, None, seed=0)
        >>> len(train), len(validation)
        (18, 2)
    """
    count = len(data) // 10 if count is None else count
    if count == 0:
        return data, None
    kept, held_out = stratified_split(data.labels, count, seed)
    return ImageSet(*data[kept]), ImageSet(*data[held_out])


def stratified_split(
    labels: Int64[Tensor, " n"], count: int, seed: int
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " count"]]:
    """Return indices to keep and ``count`` indices to hold out, with all classes in proportion.

    After a shuffle, image ``i`` of the ``m`` in its class has the rank ``(i + ½) / m``. Those with the smallest ranks
    are held out, so that the same fraction of every class is.

    Args:
        labels: class index of each image.
        count: number of indices to hold out.
        seed: seed of the shuffle; the global random state is neither used nor changed.

    Returns:
        Kept and held-out indices, both in ascending order.

    Raises:
        ValueError: ``count`` is negative, or a class would have no training images left.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> kept, held_out = stratified_split(labels, 2, seed=0)
        >>> labels[kept], labels[held_out]
        (tensor([0, 0, 0, 1, 1, 1]), tensor([0, 1]))
    """
    if count < 0:
        raise ValueError(f"the number of images to hold out must be 0 or more, got {count}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    position = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = (position + 0.5) / sizes.repeat_interleave(sizes)
    order = by_class[rank.argsort(stable=True)]
    held_out, kept = order[:count], order[count:]
    if ((labels[kept].bincount(minlength=len(sizes)) == 0) & (sizes > 0)).any():
        raise ValueError(f"cannot hold out {count} of {len(labels)} images: each class must keep one for training")
    return kept.sort().values, held_out.sort().values
