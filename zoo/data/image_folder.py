import logging
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median_low

import torch

from zoo.data._image_files import find_images, has_image_suffix, is_hidden, read_image, read_images
from zoo.data._paths import resolve_folder
from zoo.data._splits import border_median, stratified_split
from zoo.data.images import ImageData, ImageSet

logger = logging.getLogger("zoo.data")

Sample = tuple[Path, int]  # file and label of an image
SPLITS = {  # names of the folders of a set that is already split, in upper or lower case
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


def load_image_folder(
    root: str | Path, size: tuple[int, int] | None = None, validation: int | None = None, split_seed: int = 0
) -> ImageData:
    """Load images from one folder per class.

    The layout is ``root/<class>/…``, or ``root/train/<class>/…``, ``root/test/<class>/…`` and optionally
    ``root/validation/<class>/…``. In the first, a tenth of the images becomes the test set and a tenth the validation
    set, with all classes in proportion. In the second, ``training``, ``testing``, ``valid`` and ``val`` are alternative
    names; if there is a ``val`` but no ``test``, as in ImageNet, ``val`` is the test set.

    Images in subfolders of a class belong to that class. Other files are skipped, and counted in a warning. Images are
    gray if all training images are, else RGB; transparent pixels become white; only the first of several frames is
    read.

    Args:
        root: the folder; its name becomes the name of the data.
        size: height and width to which images are resized; None for the medians of the training images.
        validation: number of images to hold out; None for a tenth, or for ``root/validation`` if it exists.
        split_seed: seed of the split.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the layout is neither of the two, a class is empty or has no training images, or an image cannot be
            read.

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
    splits = _find_splits(root)
    classes = _class_names(splits.get("train", root))
    if not splits:
        _check_no_nested_splits(root, classes)
    skipped: Counter[str] = Counter()
    list_samples = partial(_list_samples, root=root, classes=classes, skipped=skipped)

    train = list_samples(splits.get("train", root))
    tenth = len(train) // 10
    if splits:
        test = list_samples(splits["test"])
        if untested := [classes[i] for i in sorted({i for _, i in train} - {i for _, i in test})]:
            logger.warning("There are no test images of %s: their accuracy is unknown.", ", ".join(untested))
    else:
        tenth = max(1, tenth)
        train, test = _split(train, tenth, split_seed)
    if "validation" not in splits:
        train, held_out = _split(train, tenth if validation is None else validation, split_seed)
    elif validation is None:
        held_out = list_samples(splits["validation"])
    else:
        raise ValueError(
            f"{splits['validation']} is the validation set, but validation={validation} more images are to be held "
            "out; use one of the two"
        )
    _warn_of_unread(root, splits)
    if skipped:
        logger.warning("Skipped %d of the files in %s: %s.", skipped.total(), root, _format_counts(skipped))

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


def _find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of the splits; none if ``root`` contains classes."""
    splits: dict[str, Path] = {}
    for name in _subfolders(root):
        for split in (split for split, names in SPLITS.items() if name.lower() in names):
            if split in splits:
                raise ValueError(f"{root} contains both {splits[split].name} and {name}; merge the two, or rename one")
            splits[split] = root / name
    # A folder named train or test may be a class (bus, plane, train): it is one if ``root`` has other folders, but no
    # other split, and the folder has no subfolders.
    either = splits.get("train") or splits.get("test")
    if either is None or (len(splits) == 1 and len(_subfolders(root)) > 1 and not _subfolders(either)):
        return {}
    splits.setdefault("train", root / "train")
    if "validation" in splits and "test" not in splits:
        splits["test"] = splits.pop("validation")
        logger.warning(
            "%s has no folder named test: %s is the test set, and the validation set is held out of train.",
            root,
            splits["test"].name,
        )
    test = splits.setdefault("test", root / "test")
    if "validation" in splits and not _subfolders(test):
        raise ValueError(
            f"{test} contains no folders of classes, and so no labels to evaluate with; put its images into such "
            f"folders, or move it out of {root}, and {splits['validation'].name} becomes the test set"
        )
    return splits


def _check_no_nested_splits(root: Path, classes: tuple[str, ...]) -> None:
    """Check that no class is split itself."""
    names = {name for others in SPLITS.values() for name in others}
    for name in classes:
        inner = [folder for folder in _subfolders(root / name) if folder.lower() in names]
        if len(inner) > 1:
            raise ValueError(
                f"{root / name} is not a class, but contains {' and '.join(inner)}; use {root / name} as the folder, "
                f"or put {' and '.join(inner)} into {root}, and the classes into these"
            )


def _warn_of_unread(root: Path, splits: dict[str, Path]) -> None:
    """Warn of images and folders that are not read."""
    for folder in splits.values() if splits else (root,):
        loose = sum(has_image_suffix(path) and path.is_file() for path in folder.iterdir())
        if loose:
            logger.warning("%d images directly in %s are in no folder of a class, and are not read.", loose, folder)
    others = sorted(set(_subfolders(root)) - {folder.name for folder in splits.values()}) if splits else []
    if others:
        read = " and ".join(folder.name for folder in splits.values())
        logger.warning("In %s only %s is read, not %s.", root, read, ", ".join(others))


def _subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, in order."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; put images there, in a folder for each class")
    if names := _subfolders(folder):
        return tuple(names)
    raise ValueError(f"{folder} has no subfolders; put the images of each class into a folder there")


def _split(samples: list[Sample], count: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return samples to keep and ``count`` samples to hold out; see ``stratified_split``."""
    kept, held_out = stratified_split(torch.tensor([label for _, label in samples]), count, seed)
    return [samples[i] for i in kept.tolist()], [samples[i] for i in held_out.tolist()]


def _list_samples(folder: Path, root: Path, classes: tuple[str, ...], skipped: Counter[str]) -> list[Sample]:
    """Return every image in the class folders of ``folder`` with its label, and count other files in ``skipped``."""
    samples = []
    names = _class_names(folder)
    skipped.update(f"hidden folder {path.name}" for path in folder.iterdir() if path.is_dir() and is_hidden(path))
    for name in names:
        if name not in classes:
            raise ValueError(
                f"{folder / name} is a class without training images; the training classes are {', '.join(classes)}"
            )
        others: Counter[str] = Counter()
        paths = list(find_images(folder / name, root, others))
        if not paths and others:
            raise ValueError(
                f"{folder / name} contains no images, only {_format_counts(others)}; put the images of this class there"
            )
        if not paths:
            raise ValueError(f"{folder / name} is empty; put the images of this class there or remove it")
        skipped.update(others)
        if nested := [path for path in paths if path.parent != folder / name]:
            example = nested[0].parent.relative_to(folder)
            logger.warning("%d images of class %s are in subfolders such as %s.", len(nested), name, example)
        samples += [(path, classes.index(name)) for path in paths]
    return samples


def _format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} × {kind}" for kind, count in counts.most_common())


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
