"""How a folder of images is laid out: by class, or by part and class."""

import logging
from pathlib import Path

from zoo.data.image_files import has_image_suffix, is_hidden

logger = logging.getLogger("zoo.data")

PARTS = {  # what the folders of a set that is divided already are called, in capitals or not
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}


def parts_of(root: Path) -> dict[str, Path]:
    """Folders of the parts of a set that is divided already; none if ``root`` holds classes.

    A folder that is called like a part may be a class (``bus``, ``plane``, ``train``), if the other part is missing and
    there are pictures in it, not classes.

    Raises:
        ValueError: a part is there twice.
    """
    parts: dict[str, Path] = {}
    for name in subfolders(root):
        for part in (part for part, names in PARTS.items() if name.lower() in names):
            if part in parts:
                raise ValueError(f"{root} holds both {parts[part].name} and {name}; join the two, or rename one")
            parts[part] = root / name
    others = len(subfolders(root)) - len(parts)
    decisive = [part for part in ("train", "test") if part in parts]
    if not decisive or (len(parts) == 1 and others and not subfolders(parts[decisive[0]])):
        return {}
    return {"train": root / "train", **parts}


def refuse_parts_within(root: Path, classes: tuple[str, ...]) -> None:
    """Refuse classes that are divided into parts each.

    Raises:
        ValueError: a class holds ``train`` and ``test``, or ``val``.
    """
    names = {name for others in PARTS.values() for name in others}
    for name in classes:
        inner = [folder for folder in subfolders(root / name) if folder.lower() in names]
        if len(inner) > 1:
            raise ValueError(
                f"{root / name} is no class, but holds {' and '.join(inner)}; give {root / name} as the folder, or put "
                f"{' and '.join(inner)} into {root}, and the classes into these"
            )


def warn_of_unread(root: Path, parts: dict[str, Path]) -> None:
    """Say what in the folder is not used."""
    for folder in parts.values() if parts else (root,):
        loose = sum(has_image_suffix(path) and path.is_file() for path in folder.iterdir())
        if loose:
            logger.warning("Of the pictures in %s %d lie in no folder of a class, and are not read.", folder, loose)
    others = sorted(set(subfolders(root)) - {folder.name for folder in parts.values()}) if parts else []
    if others:
        read = " and ".join(folder.name for folder in parts.values())
        logger.warning("Of %s only %s is read, and not %s.", root, read, ", ".join(others))


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, in order."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def class_names(folder: Path) -> tuple[str, ...]:
    """Name the classes that ``folder`` holds.

    Raises:
        ValueError: it holds none.
    """
    if names := subfolders(folder):
        return tuple(names)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; put pictures there, in a folder for each class")
    raise ValueError(f"{folder} has no folders in it; put the pictures of each class into a folder there")
