from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

LabelledImages = tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures as two tensors.

    Example:
        >>> digits = ImageSet(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([7, 2, 1]))
        >>> images, labels = digits[torch.tensor([2, 0])]
        >>> images.shape, labels
        (torch.Size([2, 1, 28, 28]), tensor([1, 7]))
    """

    images: UInt8[Tensor, "n channels height width"]
    """Grey levels or colours, 0 to 255."""
    labels: Int64[Tensor, " n"]
    """Class of each picture, counted from 0."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Int64[Tensor, " batch"]) -> LabelledImages:
        return self.images.index_select(0, index), self.labels.index_select(0, index)


@dataclass(frozen=True, eq=False)
class ImageData:
    """What a model trains on, and the test set it is judged by.

    Example:
        >>> digits = ImageSet(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([7, 2, 1]))
        >>> data = ImageData("digits", digits, None, lambda: digits, tuple("0123456789"), (0.0,))
        >>> data.image_shape
        (1, 28, 28)
    """

    name: str
    """Short name for tables and folders, such as "mnist"."""
    train: ImageSet
    """What the model learns from."""
    validation: ImageSet | None
    """Held out of the training pictures to choose a model by; None where nothing was held out."""
    load_test: Callable[[], ImageSet]
    """Decodes the test pictures; a function, so that they are looked at once, at the end."""
    classes: tuple[str, ...]
    """Name of each label."""
    fill_value: tuple[float, ...]
    """Pixel value per channel outside the images, from 0 to 1."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every picture."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def border_median(images: UInt8[Tensor, "n channels height width"]) -> tuple[float, ...]:
    """Median of the outermost pixels of all pictures, for each channel, from 0 to 1.

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
