import logging
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median_low

import torch

from zoo.data._folder_layout import check_no_nested_splits, class_names, find_splits, subfolders, warn_of_unread
from zoo.data._image_files import find_images, format_counts, is_hidden, read_image, read_images
from zoo.data._paths import resolve_folder
from zoo.data._splits import border_median, stratified_split
from zoo.data.images import ImageData, ImageSet

logger = logging.getLogger("zoo.data")

Sample = tuple[Path, int]  # file and label of an image


def load_image_folder(
    root: str | Path, size: tuple[int, int] | None = None, validation: int | None = None, split_seed: int = 0
) -> ImageData:
    """Load images from one folder per class.

    Either ``root/train/<class>/…`` and ``root/test/<class>/…`` and optionally ``root/validation/<class>/…``; or
    ``root/<class>/…``, of which a tenth becomes the test set and a tenth the validation set, with all classes in
    proportion. ``training``, ``testing``, ``valid`` and ``val`` are alternative names. If there are ``train`` and
    ``val`` but no ``test``, as in ImageNet, ``val`` is the test set and is not used for model selection.

    Images in subfolders of a class belong to that class. Hidden files and files that are not images are skipped, and
    counted in a warning. Images are gray if all training images are, else RGB; transparent pixels become white, and of
    several frames the first is read.

    Args:
        root: the folder; its name becomes the name of the data.
        size: height and width to which every image is resized; None for the median height and width of the training
            images.
        validation: number of images to hold out; None for a tenth, or for ``root/validation`` if it exists.
        split_seed: seed of the split.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has another layout, a class is empty or unknown, an image cannot be read, or a class
            would have no training images left.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     for name, gray in (("dark", 20), ("light", 200)):
        ...         Path(root, name).mkdir()
        ...         for i in range(10):
        ...             Image.new("L", (8, 6), gray).save(Path(root, name, f"{i}.png"))
        ...     data = load_image_folder(root)
        >>> data.classes, data.image_shape, len(data.train), len(data.validation)
        (('dark', 'light'), (1, 6, 8), 16, 2)
    """
    root = resolve_folder(root)
    if size is not None and min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1, got {size}")
    skipped: Counter[str] = Counter()
    if splits := find_splits(root):
        classes = class_names(splits["train"])
        train, held_out, test = _list_splits(root, splits, classes, validation, split_seed, skipped)
    else:
        classes = class_names(root)
        check_no_nested_splits(root, classes)
        samples = _list_samples(root, root, classes, skipped)
        tenth = max(1, len(samples) // 10)
        rest, test = _split(samples, tenth, split_seed)
        train, held_out = _split(rest, tenth if validation is None else validation, split_seed)
    warn_of_unread(root, splits)
    if skipped:
        logger.warning("Skipped %d of the files in %s: %s.", skipped.total(), root, format_counts(skipped))

    # The images are decoded twice, since all of them at full size may not fit into memory.
    formats = [(image.mode, image.height, image.width) for image in (read_image(path) for path, _ in train)]
    mode = "L" if all(mode == "L" for mode, *_ in formats) else "RGB"
    size = size or _common_size([(height, width) for _, height, width in formats], root)
    train_set = _read_samples(train, mode, size)
    return ImageData(
        name=root.name,
        train=train_set,
        validation=_read_samples(held_out, mode, size) if held_out else None,
        load_test=partial(_read_samples, test, mode, size),
        classes=classes,
        fill_value=border_median(train_set.images),
    )


def _list_splits(
    root: Path,
    splits: dict[str, Path],
    classes: tuple[str, ...],
    validation: int | None,
    seed: int,
    skipped: Counter[str],
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Return training, validation and test samples of a folder that is already split."""
    held_out, test = splits.get("validation"), splits.get("test")
    if test is None and held_out is not None:
        logger.warning(
            "%s has no folder named test: %s is the test set, and the validation set is held out of train.",
            root,
            held_out.name,
        )
        held_out, test = None, held_out
    if test is not None and held_out is not None and not subfolders(test):
        raise ValueError(
            f"{test} contains no folders of classes, and so no labels to evaluate with; put its images into such "
            f"folders, or move it out of {root}, and {held_out.name} becomes the test set"
        )
    train_samples, test_samples = (
        _list_samples(folder, root, classes, skipped) for folder in (splits["train"], test or root / "test")
    )
    if untested := [classes[i] for i in sorted({i for _, i in train_samples} - {i for _, i in test_samples})]:
        logger.warning("There are no test images of %s: their accuracy is unknown.", ", ".join(untested))
    if held_out is None:
        count = len(train_samples) // 10 if validation is None else validation
        return *_split(train_samples, count, seed), test_samples
    if validation is not None:
        raise ValueError(
            f"{held_out} is the validation set, but validation={validation} more images are to be held out; "
            "use one of the two"
        )
    return train_samples, _list_samples(held_out, root, classes, skipped), test_samples


def _split(samples: list[Sample], count: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return samples to keep and ``count`` samples to hold out: see ``stratified_split``."""
    kept, held_out = stratified_split(torch.tensor([label for _, label in samples]), count, seed)
    return [samples[i] for i in kept.tolist()], [samples[i] for i in held_out.tolist()]


def _list_samples(folder: Path, root: Path, classes: tuple[str, ...], skipped: Counter[str]) -> list[Sample]:
    """Return every image in the class folders of ``folder`` with its label."""
    samples = []
    names = class_names(folder)
    skipped.update(f"hidden folder {path.name}" for path in folder.iterdir() if path.is_dir() and is_hidden(path))
    for name in names:
        if name not in classes:
            raise ValueError(
                f"{folder / name} is a class without training images; the training classes are {', '.join(classes)}"
            )
        others: Counter[str] = Counter()
        paths = find_images(folder / name, root, others)
        if not paths and others:
            raise ValueError(
                f"{folder / name} contains no images, only {format_counts(others)}; put the images of this class there"
            )
        if not paths:
            raise ValueError(f"{folder / name} is empty; put the images of this class there or remove it")
        skipped.update(others)
        nested = [path for path in paths if path.parent != folder / name]
        if nested:
            logger.warning(
                "%d images of class %s are in subfolders such as %s, and are used.",
                len(nested),
                name,
                nested[0].parent.relative_to(folder),
            )
        samples += [(path, classes.index(name)) for path in paths]
    return samples


def _common_size(sizes: list[tuple[int, int]], root: Path) -> tuple[int, int]:
    """Return median height and median width, and warn if images must be resized."""
    size = median_low(height for height, _ in sizes), median_low(width for _, width in sizes)
    if any(other != size for other in sizes):
        logger.warning(
            "The images in %s differ in size and are resized to %d × %d, their median height and width; "
            "set size to use another.",
            root,
            *size,
        )
    return size


def _read_samples(samples: list[Sample], mode: str, size: tuple[int, int]) -> ImageSet:
    images = read_images([path for path, _ in samples], mode, size)
    return ImageSet(images, torch.tensor([label for _, label in samples]))
