import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from zoo.data.images import ImageData, ImageSet, border_median
from zoo.data.split import hold_out

TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

UNSIGNED_BYTE = 8  # the code of the only type of value that pictures and labels come in


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """Read one IDX file, the format MNIST comes in: a header with the shape, then the values.

    Args:
        path: the file, plain or packed with gzip (``.gz``).

    Raises:
        ValueError: the file is damaged, empty or holds anything but unsigned bytes.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1]) + bytes([0, 0, 0, 3]) + bytes([7, 2, 1]))
        ...     read_idx(path)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    with open_idx(path) as file:
        shape = read_shape(file, path)
        values = bytearray(file.read())
    if len(values) != math.prod(shape):
        raise damaged(path, f"its header promises {math.prod(shape)} values and {len(values)} follow")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def read_labelled_images(images: Path, labels: Path) -> ImageSet:
    """Read grey pictures and their labels from a pair of IDX files.

    Raises:
        ValueError: a file is damaged, or the two do not belong together.
    """
    check_pair(images, labels)
    return ImageSet(read_idx(images).unsqueeze(1), read_idx(labels).long())


def load_idx(root: str | Path, validation: int | None = None, split_seed: int = 0) -> ImageData:
    """Load pictures of any height and width from four IDX files named as MNIST's.

    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each plain or with ``.gz`` added, lie directly in ``root``.

    Args:
        root: the folder; its name becomes the name of the data.
        validation: how many training pictures to hold out; None for a tenth.
        split_seed: of the choice of the held out.

    Raises:
        FileNotFoundError: one of the four files is missing.
        ValueError: a file is damaged, files do not belong together, or nothing is left to train on.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for images, labels in (TRAIN_FILES, TEST_FILES):
        ...         header = bytes([0, 0, 8, 3]) + bytes([0, 0, 0, 20, 0, 0, 0, 4, 0, 0, 0, 6])
        ...         _ = Path(root, images).write_bytes(header + bytes(20 * 4 * 6))
        ...         _ = Path(root, labels).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes([0, 1] * 10))
        ...     data = load_idx(root)
        >>> data.image_shape, data.classes, len(data.train), len(data.validation)
        ((1, 4, 6), ('0', '1'), 18, 2)
    """
    root = Path(root).expanduser().resolve()
    train_images, train_labels, test_images, test_labels = (find_idx(root, name) for name in TRAIN_FILES + TEST_FILES)
    everything = read_labelled_images(train_images, train_labels)
    classes = int(everything.labels.max()) + 1
    if (shape := check_pair(test_images, test_labels)) != everything.images.shape[2:]:
        raise ValueError(
            f"the pictures in {test_images} are {' × '.join(map(str, shape))}, those in {train_images} "
            f"{' × '.join(map(str, everything.images.shape[2:]))}; make them the same size"
        )

    def load_test() -> ImageSet:
        test = read_labelled_images(test_images, test_labels)
        if (label := int(test.labels.max())) >= classes:
            raise ValueError(
                f"{test_labels} has label {label}, but the labels in {train_labels} end at {classes - 1}; "
                "remove the pictures of classes that are not trained on"
            )
        return test

    train, held_out = hold_out(everything, validation, split_seed)
    names = tuple(str(label) for label in range(classes))
    return ImageData(root.name, train, held_out, load_test, names, border_median(train.images))


def find_idx(root: Path, name: str) -> Path:
    """Path of an IDX file, plain or packed.

    Raises:
        FileNotFoundError: neither is there.
    """
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{root} holds neither {name} nor {name}.gz; put {', '.join(TRAIN_FILES + TEST_FILES)} there"
    )


def check_pair(images: Path, labels: Path) -> tuple[int, int]:
    """Height and width of the pictures, from the headers of a pair of IDX files that belong together.

    Raises:
        ValueError: a header is damaged, or the two do not belong together.
    """
    shapes = []
    for path, dimensions in ((images, 3), (labels, 1)):
        with open_idx(path) as file:
            shapes.append(read_shape(file, path))
        if len(shapes[-1]) != dimensions:
            raise damaged(path, f"it has {len(shapes[-1])} dimensions where {dimensions} are expected")
    (count, height, width), (labelled,) = shapes
    if count != labelled:
        raise ValueError(f"{images} holds {count} pictures, but {labels} {labelled} labels; take both from one source")
    return height, width


@contextmanager
def open_idx(path: Path) -> Iterator[BufferedIOBase]:
    """Open an IDX file, unpacking it on the way where its name ends in ``.gz``.

    Raises:
        ValueError: what is read within the context cannot be unpacked.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            yield file
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, f"it cannot be unpacked ({error})") from error


def read_shape(file: BufferedIOBase, path: Path) -> tuple[int, ...]:
    """Read the header of an IDX file: two zeros, type of value, number of dimensions, then each dimension.

    Raises:
        ValueError: the header is damaged, promises nothing, or names another type than unsigned byte.
    """
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise damaged(path, "it does not begin as an IDX file does")
    value_type, dimensions = magic[2:]
    if value_type != UNSIGNED_BYTE:
        raise damaged(path, f"its values are of type {value_type:#04x}, not unsigned bytes (0x08)")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise damaged(path, "it ends within its header")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if not shape or 0 in shape:
        raise damaged(path, "it holds no values")
    return shape


def damaged(path: Path, reason: str) -> ValueError:
    """Make the error that names the file, what is wrong with it and the cure."""
    return ValueError(f"{path} cannot be used: {reason}; replace it with an intact copy")
