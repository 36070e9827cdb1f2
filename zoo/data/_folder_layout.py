"""Layout of an image folder: by class, or by split and class."""

import logging
from pathlib import Path

from zoo.data._image_files import has_image_suffix, is_hidden

logger = logging.getLogger("zoo.data")

SPLITS = {  # names of the folders of a set that is already split, in any case
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


def find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of the splits; none if ``root`` contains classes."""
    splits: dict[str, Path] = {}
    for name in subfolders(root):
        for split in (split for split, names in SPLITS.items() if name.lower() in names):
            if split in splits:
                raise ValueError(f"{root} contains both {splits[split].name} and {name}; merge the two, or rename one")
            splits[split] = root / name
    # A folder named like a split may be a class (bus, plane, train) if the other one is missing and it contains images.
    others = len(subfolders(root)) - len(splits)
    decisive = [split for split in ("train", "test") if split in splits]
    if not decisive or (len(splits) == 1 and others and not subfolders(splits[decisive[0]])):
        return {}
    return {"train": root / "train", **splits}


def check_no_nested_splits(root: Path, classes: tuple[str, ...]) -> None:
    """Check that no class is split itself."""
    names = {name for others in SPLITS.values() for name in others}
    for name in classes:
        inner = [folder for folder in subfolders(root / name) if folder.lower() in names]
        if len(inner) > 1:
            raise ValueError(
                f"{root / name} is not a class, but contains {' and '.join(inner)}; use {root / name} as the folder, "
                f"or put {' and '.join(inner)} into {root}, and the classes into these"
            )


def warn_of_unread(root: Path, splits: dict[str, Path]) -> None:
    """Warn of images and folders that are not read."""
    for folder in splits.values() if splits else (root,):
        loose = sum(has_image_suffix(path) and path.is_file() for path in folder.iterdir())
        if loose:
            logger.warning("%d images directly in %s are in no folder of a class, and are not read.", loose, folder)
    others = sorted(set(subfolders(root)) - {folder.name for folder in splits.values()}) if splits else []
    if others:
        read = " and ".join(folder.name for folder in splits.values())
        logger.warning("In %s only %s is read, not %s.", root, read, ", ".join(others))


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, in order."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes in ``folder``."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; put images there, in a folder for each class")
    if names := subfolders(folder):
        return tuple(names)
    raise ValueError(f"{folder} has no subfolders; put the images of each class into a folder there")
