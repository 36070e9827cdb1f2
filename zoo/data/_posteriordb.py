import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class ReferenceMoments(NamedTuple):
    """Moments of a posterior and their standard errors, 0 if the moment is exact.

    Example:
        >>> one = torch.ones(1)
        >>> ReferenceMoments(("mu",), one, 0 * one, 5 * one, 0 * one).sd
        tensor([2.])
    """

    names: tuple[str, ...]
    mean: Float[Tensor, " quantities"]
    mean_std_error: Float[Tensor, " quantities"]
    mean_square: Float[Tensor, " quantities"]
    mean_square_std_error: Float[Tensor, " quantities"]

    @property
    def sd(self) -> Float[Tensor, " quantities"]:
        """Standard deviations, computed from the two moments."""
        return (self.mean_square - self.mean.square()).sqrt()


def read_data(folder: Path, dimensions: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Read named arrays of a posterior of posteriordb, in torch's default dtype.

    Magnusson et al., "posteriordb: Testing, benchmarking and developing Bayesian inference algorithms", 2024. The file
    is ``FOLDER/data.json``, or else a ``.json`` or ``.json.zip`` file of a clone of posteriordb. The clone's database
    is the parent folder of ``FOLDER``, or ``posterior_database`` in that folder. ``dimensions`` are the expected
    numbers of dimensions by name; all arrays have the same number of rows.
    """
    path = _find(folder, "data")
    content = _read_json(path)
    found = tuple(_tensor(content, name, path, torch.get_default_dtype()) for name in dimensions)
    fits = all(part.numel() and part.ndim == count for part, count in zip(found, dimensions.values(), strict=True))
    if not fits or len({len(part) for part in found}) != 1:
        shapes = {name: tuple(part.shape) for name, part in zip(dimensions, found, strict=True)}
        raise ValueError(
            f"{path} must contain arrays with these numbers of dimensions and the same number of rows: "
            f"{dict(dimensions)}; got the shapes {shapes}"
        )
    return found


def read_reference(folder: Path) -> ReferenceMoments:
    """Read float64 reference moments from ``mean.json`` and ``mean_squared.json``, or from a clone of posteriordb."""
    mean, square = _find(folder, "mean"), _find(folder, "mean_squared")
    names, *mean_moments = _read_moments(mean, "mean_value")
    square_names, *square_moments = _read_moments(square, "mean_squared_value")
    if names != square_names:
        raise ValueError(f"{mean} and {square} must name the same quantities, got {names} and {square_names}")
    reference = ReferenceMoments(names, *mean_moments, *square_moments)
    if not (reference.sd > 0).all():
        raise ValueError(f"{mean} and {square} imply a variance that is not positive; replace them with intact copies")
    return reference


def _find(folder: Path, part: str) -> Path:
    """Return the path of a part of a posterior: ``data``, ``mean`` or ``mean_squared``."""
    own = folder / f"{part}.json"
    paths = list(_in_clone(folder, part))
    for path in (own, *paths):
        if path.is_file():
            return path
    also = f", and no {paths[0]} in the clone of posteriordb" if paths else ""
    raise FileNotFoundError(
        f"there is no {own}{also}; set ZOO_DATA to the parent folder of posteriordb, which is a clone of the "
        "repository stan-dev/posteriordb or has a folder for each posterior"
    )


def _in_clone(folder: Path, part: str) -> Iterator[Path]:
    """Yield possible paths of a part of a posterior in a clone of posteriordb."""
    for database in (folder.parent / "posterior_database", folder.parent):
        description = database / "posteriors" / f"{folder.name}.json"
        if not description.is_file():
            continue
        about = _read_json(description)
        if part == "data":
            data = database / "data" / "data" / f"{about.get('data_name')}.json"
            yield from (data.with_name(f"{data.name}.zip"), data)
        else:
            statistic = f"{part}_value"
            summaries = database / "reference_posteriors" / "summary_statistics"
            yield summaries / statistic / statistic / f"{about.get('reference_posterior_name') or folder.name}.json"


def _read_moments(path: Path, value: str) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Read names, moments and standard errors."""
    content = _read_json(path)
    moments = _tensor(content, value, path, torch.float64)
    errors = _tensor(content, "mcse_mean", path, torch.float64)
    names = tuple(content.get("names", ()))
    if not len(names) == len(moments) == len(errors):
        raise ValueError(
            f"{path} must contain a moment and an error for each name, got {len(names)} names, {len(moments)} moments "
            f"and {len(errors)} errors; replace it with an intact copy"
        )
    return names, moments, errors


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, or from the only file in a zip archive."""
    try:
        content = json.loads(_unzip(path) if path.suffix == ".zip" else path.read_bytes())
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); replace it with an intact copy") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must contain a JSON object, got a {type(content).__name__}")
    return content


def _unzip(path: Path) -> bytes:
    """Return the content of the only file in a zip archive, without the files that macOS adds."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        if len(names) != 1:
            raise ValueError(f"expected one file in the archive, got {len(names)}")
        return archive.read(names[0])


def _tensor(content: dict[str, Any], name: str, path: Path, dtype: torch.dtype) -> Tensor:
    """Return a number or an array of numbers as a tensor."""
    if name not in content:
        raise ValueError(f"{path} has no {name}; it has {', '.join(content) or 'nothing'}")
    try:
        values = torch.tensor(content[name], dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} in {path} must be a number or a regular array of numbers") from error
    if not values.isfinite().all():
        raise ValueError(f"{name} in {path} must be finite, but contains NaN or infinity")
    return values
