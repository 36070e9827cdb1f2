import os
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from zoo.plotting.style import DPI, house_style


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG of fixed resolution: wholly or not at all, and the same bytes every time.

    Args:
        figure: any matplotlib figure.
        path: ends in ``.png``; a file already there is replaced.

    Raises:
        ValueError: the path does not end in ``.png``.
        FileNotFoundError: its folder does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_figure(Figure(figsize=(1, 1)), Path(folder) / "empty.png")
        ...     [file.name for file in Path(folder).iterdir()]
        ['empty.png']
    """
    target = checked_path(path, ".png")
    buffer = BytesIO()
    with house_style():  # some parts, such as ticks, are only made now
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(target, buffer.getvalue())


def checked_path(path: str | Path, suffix: str) -> Path:
    """Return the path if a file with this suffix can be put there.

    Raises:
        ValueError: the path does not end in the suffix.
        FileNotFoundError: its folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"path must end in {suffix}, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to save {path.name} in: create it first.")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file in one step, so that no reader and no crash ever meets half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
