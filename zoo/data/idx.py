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
from jaxtyping import Integer
from torch import Tensor

from zoo.data._paths import resolve_folder
from zoo.data._splits import border_median, split_validation
from zoo.data.images import ImageData, ImageSet

TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}  # NumPy dtype of each type code
NUM_QMNIST_COLUMNS = 8  # columns of QMNIST's labels: the class, then the writer and the source
GZIP_MAGIC = b"\x1f\x8b"


def load_idx(root: str | Path, validation: int | None = None, split_seed: int = 0) -> ImageData:
    """Load images of any size from four IDX files named like MNIST's, plain or compressed with gzip.

    The names are ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, or those of EMNIST and QMNIST, with a prefix and ``test`` for ``t10k``. The classes are
    the labels of the training images; they need not start at 0.

    Args:
        root: the folder; its name becomes the name of the data.
        validation: number of training images to hold out; None for a tenth.
        split_seed: seed of the split.

    Raises:
        FileNotFoundError: there is no such folder, or one of the four files is missing.
        ValueError: the folder contains several sets, a file is damaged, or files do not belong together.

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
    root = resolve_folder(root)
    train_images, train_labels, test_images, test_labels = (_find(root, name) for name in TRAIN_FILES + TEST_FILES)
    labeled = _read_labeled_images(train_images, train_labels)
    classes = labeled.labels.unique()
    train, held_out = split_validation(
        ImageSet(labeled.images, torch.searchsorted(classes, labeled.labels)), validation, split_seed
    )
    sizes = [_check_headers(test_images, test_labels), tuple(labeled.images.shape[2:])]
    if sizes[0] != sizes[1]:
        test_size, train_size = (" × ".join(map(str, size)) for size in sizes)
        raise ValueError(
            f"the images in {test_images} are {test_size}, those in {train_images} {train_size}; "
            "make them the same size"
        )

    def load_test() -> ImageSet:
        test = _read_labeled_images(test_images, test_labels)
        unknown = test.labels[~torch.isin(test.labels, classes)]
        if len(unknown):
            label, last = int(unknown.max()), int(classes[-1])
            raise ValueError(
                f"{test_labels} has label {label}, but the labels in {train_labels} "
                f"{f'end at {last}' if label > last else 'do not include it'}; use four files from the same source"
            )
        return ImageSet(test.images, torch.searchsorted(classes, test.labels))

    names = tuple(str(label) for label in classes.tolist())
    return ImageData(root.name, train, held_out, load_test, names, border_median(train.images))


def read_idx(path: Path) -> Integer[Tensor, "..."]:
    """Return the integers in an IDX file, the format of MNIST, plain or compressed with gzip.

    Raises:
        ValueError: the file is damaged, empty or does not contain integers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1]) + bytes([0, 0, 0, 3]) + bytes([7, 2, 1]))
        ...     read_idx(path)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    with _open(path) as file:
        dtype, shape = _read_header(file, path)
        content = file.read()
    count, size = math.prod(shape), dtype.itemsize
    if len(content) != count * size:
        of_size, unit = ("", "") if size == 1 else (f" of {size} bytes", " bytes")
        raise _damaged(path, f"its header specifies {count} values{of_size}, but {len(content)}{unit} follow")
    values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
    return torch.from_numpy(values).reshape(shape)


def _find(root: Path, name: str) -> Path:
    """Return the path of an IDX file, plain or compressed, named like MNIST's or as in other sets."""
    split, kind, *_ = name.split("-")
    others = rf"(.*[-_.])?({split}{'|test' if split == 't10k' else ''})[-_.]{kind}[-_.]idx\d[-_.]\w+"
    found = {}
    for path in sorted(root.iterdir(), reverse=True):  # so that a plain file comes after a compressed one
        plain = path.name.removesuffix(".gz")
        if path.is_file() and (plain == name or re.fullmatch(others, plain)):
            found[plain] = path
    if name in found or len(found) == 1:
        return found.get(name) or found.popitem()[1]
    if found:
        raise ValueError(
            f"{root} contains several sets: {', '.join(sorted(found))}; put the four files of each into its own folder"
        )
    raise FileNotFoundError(
        f"{root} contains neither {name} nor {name}.gz; put {', '.join(TRAIN_FILES + TEST_FILES)} there"
    )


def _read_labeled_images(images: Path, labels: Path) -> ImageSet:
    """Read gray images and their labels from a pair of IDX files."""
    _check_headers(images, labels)
    pixels, classes = read_idx(images), read_idx(labels).long()
    low, high = pixels.aminmax()
    if low < 0 or high > 255:
        raise _damaged(images, f"gray levels must lie between 0 and 255, but range from {low} to {high}")
    classes = classes[:, 0].contiguous() if classes.ndim == 2 else classes
    if classes.min() < 0:
        raise _damaged(labels, f"labels must be 0 or more, but one is {classes.min()}")
    return ImageSet(pixels.to(torch.uint8).unsqueeze(1), classes)


def _check_headers(images: Path, labels: Path) -> tuple[int, int]:
    """Check that images and labels have the right shapes and the same number, and return the images' height and width.

    Labels may have the columns of QMNIST; the first is the class.
    """
    shapes = []
    for path, dimensions in ((images, 3), (labels, 1)):
        with _open(path) as file:
            _, shape = _read_header(file, path)
        if len(shape) == 2 and shape[1] == NUM_QMNIST_COLUMNS and dimensions == 1:
            shape = shape[:1]
        if len(shape) != dimensions:
            raise _damaged(path, f"it has {len(shape)} dimensions where {dimensions} are expected")
        shapes.append(shape)
    (num_images, height, width), (num_labels,) = shapes
    if num_images != num_labels:
        raise ValueError(
            f"{images} contains {num_images} images, but {labels} {num_labels} labels; use both files from one source"
        )
    return height, width


@contextmanager
def _open(path: Path) -> Iterator[BufferedIOBase]:
    """Open an IDX file, and decompress it if its name ends in ``.gz`` or its content starts like gzip's."""
    with path.open("rb") as start:
        compressed = path.suffix == ".gz" or start.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with gzip.open(path) if compressed else path.open("rb") as file:
        try:
            yield file
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, f"it cannot be decompressed ({error})") from error


def _read_header(file: BufferedIOBase, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Read the header of an IDX file: two zeros, type code, number of dimensions, then each dimension."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise _damaged(path, "it does not start like an IDX file")
    code, dimensions = magic[2:]
    if code not in DTYPES:
        codes = ", ".join(f"{known:#04x}" for known in DTYPES if known != 0x08)
        raise _damaged(path, f"its values have type {code:#04x}, not unsigned bytes (0x08) or other integers ({codes})")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise _damaged(path, "it ends within its header")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if not shape or 0 in shape:
        raise _damaged(path, "it has no values")
    return np.dtype(DTYPES[code]), shape


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is invalid: {reason}; replace it with an intact copy")
