import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor

from zoo.data.images import ImageData, ImageSet, border_median
from zoo.data.paths import data_folder
from zoo.data.split import hold_out

TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

WHOLE_NUMBERS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}  # numpy's names of the types that codes stand for
QMNIST_COLUMNS = 8  # of its labels: the class, then who wrote the digit, and where it was kept
GZIP = b"\x1f\x8b"  # how a packed file begins


def read_idx(path: Path) -> Integer[Tensor, "..."]:
    """Read one IDX file, the format MNIST comes in: a header with the shape, then the values.

    Args:
        path: the file, plain or packed with gzip.

    Returns:
        Whole numbers of the type that the file has: unsigned bytes, or signed numbers of 1, 2 or 4 bytes.

    Raises:
        ValueError: the file is damaged, empty or does not hold whole numbers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1]) + bytes([0, 0, 0, 3]) + bytes([7, 2, 1]))
        ...     read_idx(path)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    with open_idx(path) as file:
        dtype, shape = _read_header(file, path)
        content = file.read()
    count, size = math.prod(shape), dtype.itemsize
    if len(content) != count * size:
        of_size, unit = ("", "") if size == 1 else (f" of {size} bytes", " bytes")
        raise damaged(path, f"its header promises {count} values{of_size} and {len(content)}{unit} follow")
    values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
    return torch.from_numpy(values).reshape(shape)


def read_labelled_images(images: Path, labels: Path) -> ImageSet:
    """Read grey pictures and their labels from a pair of IDX files.

    Raises:
        ValueError: a file is damaged, or the two do not belong together.
    """
    check_pair(images, labels)
    return ImageSet(_read_pixels(images).unsqueeze(1), _read_labels(labels))


def _read_pixels(path: Path) -> UInt8[Tensor, "n height width"]:
    """Read grey levels from 0 to 255, of any type of whole numbers.

    Raises:
        ValueError: the file is damaged, or a value is no grey level.
    """
    pixels = read_idx(path)
    if pixels.dtype != torch.uint8 and not ((pixels >= 0) & (pixels <= 255)).all():
        raise damaged(path, f"grey levels must lie between 0 and 255, and go from {pixels.min()} to {pixels.max()}")
    return pixels.to(torch.uint8)


def _read_labels(path: Path) -> Int64[Tensor, " n"]:
    """Read labels: one for each picture, or the first of QMNIST's columns.

    Raises:
        ValueError: the file is damaged, or a label is negative.
    """
    labels = read_idx(path).long()
    labels = labels[:, 0].contiguous() if labels.ndim == 2 else labels
    if (labels < 0).any():
        raise damaged(path, f"labels must be 0 or more, and one is {labels.min()}")
    return labels


def load_idx(root: str | Path, validation: int | None = None, split_seed: int = 0) -> ImageData:
    """Load pictures of any height and width from four IDX files named as MNIST's.

    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each plain or with ``.gz`` added, lie directly in ``root``. The names of EMNIST and
    QMNIST will do, with the name of the set before and ``test`` for ``t10k``. Classes are the labels that training
    pictures have: EMNIST's letters count from 1, and have no class 0.

    Args:
        root: the folder; its name becomes the name of the data.
        validation: how many training pictures to hold out; None for a tenth.
        split_seed: of the choice of the held out.

    Raises:
        FileNotFoundError: there is no such folder, or one of the four files is missing.
        ValueError: there are several sets in the folder, a file is damaged, files do not belong together, or nothing is
            left to train on.

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
    root = data_folder(root)
    train_images, train_labels, test_images, test_labels = (find_idx(root, name) for name in TRAIN_FILES + TEST_FILES)
    everything = read_labelled_images(train_images, train_labels)
    present = everything.labels.unique()
    everything = ImageSet(everything.images, torch.searchsorted(present, everything.labels))
    if (shape := check_pair(test_images, test_labels)) != everything.images.shape[2:]:
        raise ValueError(
            f"the pictures in {test_images} are {' × '.join(map(str, shape))}, those in {train_images} "
            f"{' × '.join(map(str, everything.images.shape[2:]))}; make them the same size"
        )

    def load_test() -> ImageSet:
        test = read_labelled_images(test_images, test_labels)
        unknown = test.labels[~torch.isin(test.labels, present)]
        if len(unknown):
            label, last = int(unknown.max()), int(present[-1])
            raise ValueError(
                f"{test_labels} has label {label}, but the labels in {train_labels} "
                f"{f'end at {last}' if label > last else 'do not include it'}; take the four files from one source"
            )
        return ImageSet(test.images, torch.searchsorted(present, test.labels))

    train, held_out = hold_out(everything, validation, split_seed)
    names = tuple(str(label) for label in present.tolist())
    return ImageData(root.name, train, held_out, load_test, names, border_median(train.images))


def find_idx(root: Path, name: str) -> Path:
    """Path of an IDX file, plain or packed, named as MNIST's or as other sets name theirs.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several sets.
    """
    part, what, *_ = name.split("-")
    others = rf"(.*[-_.])?({part}{'|test' if part == 't10k' else ''})[-_.]{what}[-_.]idx\d[-_.]\w+"
    found = {}
    for path in sorted(root.iterdir(), reverse=True):  # so that a plain file comes after a packed one
        plain = path.name.removesuffix(".gz")
        if path.is_file() and (plain == name or re.fullmatch(others, plain)):
            found[plain] = path
    if name in found or len(found) == 1:
        return found.get(name) or found.popitem()[1]
    if found:
        raise ValueError(
            f"{root} holds several sets: {', '.join(sorted(found))}; put the four files of each into its own folder"
        )
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
            _, shape = _read_header(file, path)
        if len(shape) == 2 and shape[1] == QMNIST_COLUMNS and dimensions == 1:
            shape = shape[:1]
        if len(shape) != dimensions:
            raise damaged(path, f"it has {len(shape)} dimensions where {dimensions} are expected")
        shapes.append(shape)
    (count, height, width), (labelled,) = shapes
    if count != labelled:
        raise ValueError(f"{images} holds {count} pictures, but {labels} {labelled} labels; take both from one source")
    return height, width


@contextmanager
def open_idx(path: Path) -> Iterator[BufferedIOBase]:
    """Open an IDX file, unpacking it on the way where its name ends in ``.gz`` or it begins as a packed file.

    Raises:
        ValueError: what is read within the context cannot be unpacked.
    """
    with path.open("rb") as start:
        packed = path.suffix == ".gz" or start.read(len(GZIP)) == GZIP
    with gzip.open(path) if packed else path.open("rb") as file:
        try:
            yield file
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, f"it cannot be unpacked ({error})") from error


def _read_header(file: BufferedIOBase, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Read the header of an IDX file: two zeros, type of value, number of dimensions, then each dimension.

    Raises:
        ValueError: the header is damaged, promises nothing, or names a type that is not of whole numbers.
    """
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise damaged(path, "it does not begin as an IDX file does")
    value_type, dimensions = magic[2:]
    if value_type not in WHOLE_NUMBERS:
        codes = ", ".join(f"{code:#04x}" for code in WHOLE_NUMBERS if code != 0x08)
        raise damaged(
            path,
            f"its values are of type {value_type:#04x}, not unsigned bytes (0x08) or other whole numbers ({codes})",
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise damaged(path, "it ends within its header")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if not shape or 0 in shape:
        raise damaged(path, "it holds no values")
    return np.dtype(WHOLE_NUMBERS[value_type]), shape


def damaged(path: Path, reason: str) -> ValueError:
    """Make the error that names the file, what is wrong with it and the cure."""
    return ValueError(f"{path} cannot be used: {reason}; replace it with an intact copy")
