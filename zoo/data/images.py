from collections.abc import Callable
from dataclasses import dataclass

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
        >>> import torch
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
        >>> import torch
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
