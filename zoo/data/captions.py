from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from zoo.data._image_files import read_image
from zoo.data.vocabulary import Vocabulary

Caption = tuple[str, ...]
Box = tuple[int, int, int, int]  # top, left, bottom, right


class ImageFiles(Sequence[Tensor]):
    """Images that are decoded from their files when they are used: RGB, stretched to ``size`` × ``size``.

    Every format that Pillow reads is supported, above all JPEG and PNG; images of another size are resampled with
    Pillow's bicubic filter.

    Args:
        paths: file of each image.
        size: height and width of the images, in pixels.

    Raises:
        FileNotFoundError: on access to an image whose file is missing.
        ValueError: ``size`` is below 1; or, on access to an image, its file is damaged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     Image.new("RGB", (40, 30), (200, 40, 30)).save(Path(root, "red.png"))
        ...     images = ImageFiles([Path(root, "red.png")], size=8)
        ...     image = images[0]
        >>> image.shape, image.dtype, image[:, 0, 0]
        (torch.Size([3, 8, 8]), torch.uint8, tensor([200,  40,  30], dtype=torch.uint8))
    """

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.paths = tuple(paths)
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Tensor]:
        return (self._read(path) for path in self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...
    def __getitem__(self, index: int | slice) -> "Tensor | ImageFiles":
        if isinstance(index, slice):
            return ImageFiles(self.paths[index], self.size)
        return self._read(self.paths[index])

    def _read(self, path: Path) -> UInt8[Tensor, "3 size size"]:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; restore the image, or remove its name from the lists")
        image = read_image(path).convert("RGB")
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, eq=False)
class CaptionSet:
    """Images and their captions.

    Raises:
        ValueError: images, captions and boxes differ in number, an image has no caption, or a caption has no token.

    Example:
        >>> images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        >>> captions = ((("a", "dog"), ("the", "dog")),)
        >>> boxes = (((None, (2, 2, 6, 6)), (None, (2, 2, 6, 6))),)
        >>> dogs = CaptionSet(images, captions, boxes)
        >>> len(dogs), dogs.captions[0][1], dogs.boxes[0][1][1]
        (1, ('the', 'dog'), (2, 2, 6, 6))
    """

    images: Sequence[Tensor] | UInt8[Tensor, "n 3 height width"]
    """Images, uint8 tensors of shape (3, height, width) with values from 0 to 255; ``ImageFiles``, or one tensor."""
    captions: tuple[tuple[Caption, ...], ...]
    """Tokens of the captions of each image."""
    boxes: tuple[tuple[tuple[Box | None, ...], ...], ...] | None = None
    """For each token, the box (top, left, bottom, right) of the object that it names, in pixels, bottom and right
    exclusive; None for a token that names none. None if the objects are unknown."""

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"there are {len(self.images)} images, but captions of {len(self.captions)}")
        for image, captions in enumerate(self.captions):
            if not captions or not all(captions):
                raise ValueError(f"image {image} has {'an empty' if captions else 'no'} caption; leave it out")
        if self.boxes is not None:
            counts = [tuple(map(len, captions)) for captions in self.captions]
            if [tuple(map(len, boxes)) for boxes in self.boxes] != counts:
                raise ValueError("boxes must hold a box or None for each token of each caption")

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True, eq=False)
class CaptionData:
    """Training, validation and test set of captioned images.

    Example:
        >>> dogs = CaptionSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ((("a", "dog"),),))
        >>> vocabulary = Vocabulary.from_captions((c for captions in dogs.captions for c in captions), min_count=1)
        >>> data = CaptionData("dogs", dogs, dogs, lambda: dogs, vocabulary, image_size=8)
        >>> len(data.load_test())
        1
    """

    name: str
    """Short name for tables and folders, such as "flickr8k"."""
    train: CaptionSet
    """Training set."""
    validation: CaptionSet
    """Validation set, for model selection."""
    load_test: Callable[[], CaptionSet]
    """Loads the test set; a function, so that it is read once, by the final evaluation."""
    vocabulary: Vocabulary
    """Words of the training captions."""
    image_size: int
    """Height and width of every image, in pixels."""
