import logging
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from zoo.data.decoding import median_size, read_picture, read_stack
from zoo.data.image_files import described, image_files, is_hidden
from zoo.data.image_layout import class_names, parts_of, refuse_parts_within, subfolders, warn_of_unread
from zoo.data.images import ImageData, ImageSet, border_median
from zoo.data.paths import data_folder
from zoo.data.split import stratified_split

logger = logging.getLogger("zoo.data")

Sample = tuple[Path, int]  # a picture's file and its label


def load_image_folder(
    root: str | Path,
    size: tuple[int, int] | None = None,
    validation: int | None = None,
    split_seed: int = 0,
) -> ImageData:
    """Load your own pictures: a folder for each class.

    Either ``root/train/<class>/…`` and ``root/test/<class>/…`` and, if wanted, ``root/validation/<class>/…``;
    or ``root/<class>/…``, of which a tenth becomes the test set and a tenth the validation set, with every
    class in proportion. Instead of these names ``training``, ``testing``, ``valid`` and ``val`` will do. Where there is
    ``train`` and ``val`` but no ``test``, as ImageNet is laid out, ``val`` is the test set, so that it chooses nothing.

    Pictures in folders within that of a class are of this class. Names that begin with a dot, and files that are not
    images, are left out, and counted in a warning. Pictures are grey if all training pictures are, else RGB; what is
    transparent becomes white, and of several frames the first counts.

    Args:
        root: the folder; its name becomes the name of the data.
        size: height and width to bring every picture to; None for the median height and the median width of
            the training pictures.
        validation: how many pictures to hold out; None for a tenth, or for ``root/validation`` if that is there.
        split_seed: of the choice of the held out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has another layout, a class is empty or unknown, a picture cannot be read, or
            nothing is left to train on.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     for name, grey in (("dark", 20), ("light", 200)):
        ...         Path(root, name).mkdir()
        ...         for i in range(10):
        ...             Image.new("L", (8, 6), grey).save(Path(root, name, f"{i}.png"))
        ...     data = load_image_folder(root)
        >>> data.classes, data.image_shape, len(data.train), len(data.validation)
        (('dark', 'light'), (1, 6, 8), 16, 2)
    """
    root = data_folder(root)
    if size is not None and min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1, got {size}")
    skipped: Counter[str] = Counter()
    if parts := parts_of(root):
        classes = class_names(parts["train"])
        train, held_out, test = list_divided(root, parts, classes, validation, split_seed, skipped)
    else:
        classes = class_names(root)
        refuse_parts_within(root, classes)
        train, held_out, test = divide(list_pictures(root, root, classes, skipped), validation, split_seed)
    warn_of_unread(root, parts)
    if skipped:
        logger.warning("Skipped %d of the files in %s: %s.", skipped.total(), root, described(skipped))

    # Decoded twice, since all of them at full size may not fit into memory.
    formats = [(picture.mode, picture.height, picture.width) for picture in (read_picture(path) for path, _ in train)]
    mode = "L" if all(mode == "L" for mode, *_ in formats) else "RGB"
    size = size or common_size([(height, width) for _, height, width in formats], root)
    train_set = read_pictures(train, mode, size)
    return ImageData(
        name=root.name,
        train=train_set,
        validation=read_pictures(held_out, mode, size) if held_out else None,
        load_test=partial(read_pictures, test, mode, size),
        classes=classes,
        fill_value=border_median(train_set.images),
    )


def list_divided(
    root: Path,
    parts: dict[str, Path],
    classes: tuple[str, ...],
    validation: int | None,
    seed: int,
    skipped: Counter[str],
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Training, validation and test pictures of a folder that has a subfolder for each.

    Raises:
        ValueError: there is no test folder, a class is empty or unknown, or validation is given twice.
    """
    held_out, test = parts.get("validation"), parts.get("test")
    if test is None and held_out is not None:
        logger.warning(
            "%s has no folder test: %s is the test set, and what is held out for validation is taken from train.",
            root,
            held_out.name,
        )
        held_out, test = None, held_out
    if test is not None and held_out is not None and not subfolders(test):
        raise ValueError(
            f"{test} holds no folders of classes, so nothing can be judged by it; put its pictures into such folders, "
            f"or move it out of {root}, and {held_out.name} becomes the test set"
        )
    train_samples, test_samples = (
        list_pictures(folder, root, classes, skipped) for folder in (parts["train"], test or root / "test")
    )
    if untested := [classes[i] for i in sorted({i for _, i in train_samples} - {i for _, i in test_samples})]:
        logger.warning("No picture to test with is of %s: that nothing is known of.", ", ".join(untested))
    if held_out is None:
        count = len(train_samples) // 10 if validation is None else validation
        return *split(train_samples, count, seed), test_samples
    if validation is not None:
        raise ValueError(f"{held_out} is the validation set; do not ask to hold out {validation} more pictures")
    return train_samples, list_pictures(held_out, root, classes, skipped), test_samples


def divide(samples: list[Sample], validation: int | None, seed: int) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Training, validation and test pictures out of one list: a tenth each for the latter two.

    Raises:
        ValueError: a class would have nothing left to train on.
    """
    tenth = max(1, len(samples) // 10)
    rest, test = split(samples, tenth, seed)
    return *split(rest, tenth if validation is None else validation, seed), test


def split(samples: list[Sample], count: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Divide into samples to keep and ``count`` samples to hold out: see ``stratified_split``."""
    kept, held_out = stratified_split(torch.tensor([label for _, label in samples]), count, seed)
    return [samples[i] for i in kept.tolist()], [samples[i] for i in held_out.tolist()]


def list_pictures(folder: Path, root: Path, classes: tuple[str, ...], skipped: Counter[str]) -> list[Sample]:
    """Every picture below ``folder`` with the number of its class.

    Args:
        folder: that holds the folders of classes.
        root: the folder of the whole set.
        classes: to train on.
        skipped: counts what is no picture.

    Raises:
        ValueError: a class is empty, or none of ``classes``.
    """
    samples = []
    names = class_names(folder)
    skipped.update(f"hidden folder {path.name}" for path in folder.iterdir() if path.is_dir() and is_hidden(path))
    for name in names:
        if name not in classes:
            raise ValueError(
                f"{folder / name} is a class without training pictures; "
                f"the classes to train on are {', '.join(classes)}"
            )
        others: Counter[str] = Counter()
        paths = image_files(folder / name, root, others)
        if not paths and others:
            raise ValueError(
                f"{folder / name} holds no images, only {described(others)}; put the pictures of this class there"
            )
        if not paths:
            raise ValueError(f"{folder / name} is empty; put the pictures of this class there or remove it")
        skipped.update(others)
        deeper = [path for path in paths if path.parent != folder / name]
        if deeper:
            logger.warning(
                "Of the pictures of class %s %d lie in folders within its own, such as %s, and count to it.",
                name,
                len(deeper),
                deeper[0].parent.relative_to(folder),
            )
        samples += [(path, classes.index(name)) for path in paths]
    return samples


def common_size(sizes: list[tuple[int, int]], root: Path) -> tuple[int, int]:
    """Take the median height and median width, and tell the user if pictures have to be resized to them."""
    size = median_size(sizes)
    if any(other != size for other in sizes):
        logger.warning(
            "The pictures in %s differ in size and are resized to %d × %d, their median height and width; "
            "set size to choose another.",
            root,
            *size,
        )
    return size


def read_pictures(samples: list[Sample], mode: str, size: tuple[int, int]) -> ImageSet:
    """Decode pictures, all to one mode ("L" or "RGB") and one height and width.

    Raises:
        ValueError: a picture cannot be read.
    """
    images = read_stack([path for path, _ in samples], mode, size)
    return ImageSet(images, torch.tensor([label for _, label in samples]))
