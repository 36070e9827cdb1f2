import os
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from zoo.plotting._style import DPI, figure_style


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG of fixed resolution, atomically and reproducibly.

    Args:
        figure: Matplotlib figure.
        path: path that ends in ``.png``; an existing file is replaced.

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
    target = check_path(path, ".png")
    buffer = BytesIO()
    with figure_style():  # some parts, such as ticks, are created on saving
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(target, buffer.getvalue())


def check_path(path: str | Path, suffix: str) -> Path:
    """Return the path if it ends in the suffix and its folder exists; raise an error otherwise."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"path must end in {suffix}, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to save {path.name} in; create it first")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that it is never incomplete, even after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
