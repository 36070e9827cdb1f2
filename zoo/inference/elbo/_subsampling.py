"""Subsample indices of plates."""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

Subsamples = dict[str, dict[int, Tensor]]
"""Indices of the elements of each plate, by its name and its full size."""


def is_subsampled(indices: Subsamples) -> bool:
    """Return whether a plate uses a subset of its elements."""
    return any(len(found) < size for of_plate in indices.values() for size, found in of_plate.items())


class SubsampleIndices:
    """Subsample indices of the plates of one run of a guide or a model.

    As in Pyro, the guide's indices are used by every plate of the model with the same name, whether or not the model
    subsamples it. A plate draws its indices once per step, for all particles: ``drawn`` is updated.
    """

    def __init__(self, drawn: Subsamples, guide_indices: Subsamples | None = None):
        self.drawn = drawn
        self.guide_indices = guide_indices or {}
        self.used: Subsamples = {}
        self.entered: set[str] = set()
        """Plates that contain sites."""
        self.hidden: set[str] = set()
        """Subsampled plates whose indices were drawn before the program ran, or were hidden by ``poutine.block``."""

    def find(self, name: str, distribution: _Subsample, explicit: Any) -> Any:
        """Return the indices of a plate, given those passed as ``subsample=``; None if they must be drawn."""
        size = int(distribution.size)
        if name in self.guide_indices:
            known = self.guide_indices[name]
            if size not in known:
                raise ValueError(
                    f"plate {name!r} has {next(iter(known))} elements in the guide and {size} in the model; use the "
                    "same size in both, or another name"
                )
            _check_agreement(name, distribution, explicit, known[size], "in the guide")
            return known[size]
        if size in self.used.get(name, {}):
            indices = self.used[name][size]
            _check_agreement(name, distribution, explicit, indices, "earlier in the same program")
            return indices
        if explicit is not None:
            return explicit
        earlier = self.drawn.get(name, {}).get(size)
        return earlier if earlier is not None and len(earlier) == _subsample_size(distribution) else None

    def record(self, name: str, distribution: _Subsample, indices: Any) -> None:
        for known in (self.used, self.drawn):
            known.setdefault(name, {})[int(distribution.size)] = indices

    def enter(self, frames: Iterable[CondIndepStackFrame]) -> None:
        """Record the plates of a site, and those with hidden indices."""
        for frame in frames:
            self.entered.add(frame.name)
            if frame.full_size is not None and frame.size < frame.full_size and frame.name not in self.used:
                self.hidden.add(frame.name)


def check_visible(guide: SubsampleIndices, model: SubsampleIndices) -> None:
    """Raise an error if the indices of a plate are hidden in one of guide and model, and may differ in the other."""
    for program, indices, other in (("guide", guide, model), ("model", model, guide)):
        if names := sorted(indices.hidden & other.used.keys()):
            raise ValueError(
                f"the indices of plate {names[0]!r} are drawn before the {program} runs (the plate was created "
                "outside it) or hidden by poutine.block, and may differ from those of the other program; create the "
                f"plate in the {program}, or expose it"
            )


def guide_only_plates(guide: SubsampleIndices, model: SubsampleIndices) -> frozenset[str]:
    """Return the plates of the guide that the model does not have.

    Raise an error if one of them is subsampled: it would scale the guide only.
    """
    found = frozenset(guide.entered - model.entered - model.used.keys())
    for name in sorted(found):
        if name in guide.hidden or is_subsampled({name: guide.used.get(name, {})}):
            raise ValueError(
                f"the guide subsamples plate {name!r}, which the model does not have; add a plate of that name to the "
                "model"
            )
    return found


def _subsample_size(distribution: _Subsample) -> int:
    return int(distribution.size if distribution.subsample_size is None else distribution.subsample_size)


def _check_agreement(name: str, distribution: _Subsample, explicit: Any, indices: Any, where: str) -> None:
    """Raise an error if a plate specifies another number of elements, or other indices, than are used elsewhere."""
    if distribution.subsample_size is not None and _subsample_size(distribution) != len(indices):
        raise ValueError(
            f"plate {name!r} has subsample_size={_subsample_size(distribution)}, but {len(indices)} elements {where}; "
            "use the same subsample_size, or none in the model, whose plates use the guide's indices"
        )
    if explicit is None or explicit is indices:
        return
    given, other = (torch.as_tensor(x, device="cpu") for x in (explicit, indices))
    if not torch.equal(given, other):
        raise ValueError(
            f"plate {name!r} has other indices in subsample= than {where}, so latent variables and data would belong "
            "to different elements; pass the same indices to guide and model (with create_plates= for an automatic "
            "guide), or omit subsample= in the model and index its data by the indices from the plate"
        )
