import re
from pathlib import Path

import torch

from zoo.data._idx_format import check_pair, read_labeled_images
from zoo.data._paths import resolve_folder
from zoo.data._splits import border_median, split_validation
from zoo.data.images import ImageData, ImageSet

TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_idx(root: str | Path, validation: int | None = None, split_seed: int = 0) -> ImageData:
    """Load images of any size from four IDX files named like MNIST's.

    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``,
    each plain or with ``.gz`` appended, are directly in ``root``; or files named as those of EMNIST and QMNIST, with a
    prefix, and ``test`` for ``t10k``. Classes are the labels of the training images: EMNIST's letters start at 1.

    Args:
        root: the folder; its name becomes the name of the data.
        validation: number of training images to hold out; None for a tenth.
        split_seed: seed of the split.

    Raises:
        FileNotFoundError: there is no such folder, or one of the four files is missing.
        ValueError: the folder contains several sets, a file is damaged, files do not belong together, or a class would
            have no training images left.

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
    everything = read_labeled_images(train_images, train_labels)
    present = everything.labels.unique()
    everything = ImageSet(everything.images, torch.searchsorted(present, everything.labels))
    if (shape := check_pair(test_images, test_labels)) != everything.images.shape[2:]:
        raise ValueError(
            f"the images in {test_images} are {' × '.join(map(str, shape))}, those in {train_images} "
            f"{' × '.join(map(str, everything.images.shape[2:]))}; make them the same size"
        )

    def load_test() -> ImageSet:
        test = read_labeled_images(test_images, test_labels)
        unknown = test.labels[~torch.isin(test.labels, present)]
        if len(unknown):
            label, last = int(unknown.max()), int(present[-1])
            raise ValueError(
                f"{test_labels} has label {label}, but the labels in {train_labels} "
                f"{f'end at {last}' if label > last else 'do not include it'}; use four files from the same source"
            )
        return ImageSet(test.images, torch.searchsorted(present, test.labels))

    train, held_out = split_validation(everything, validation, split_seed)
    names = tuple(str(label) for label in present.tolist())
    return ImageData(root.name, train, held_out, load_test, names, border_median(train.images))


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
