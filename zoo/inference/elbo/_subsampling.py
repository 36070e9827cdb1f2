"""Subsample indices of plates."""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

Subsamples = dict[str, dict[int, Tensor]]
"""Indices of the elements of each plate, by its name and its full size."""
NO_SUBSAMPLES: Subsamples = {}


def is_subsampled(indices: Subsamples) -> bool:
    """Return whether a plate uses fewer elements than it has."""
    return any(len(found) < size for of_plate in indices.values() for size, found in of_plate.items())


class SubsampleIndices:
    """Subsample indices of the plates of one run of a guide or a model.

    The guide's indices are used by every plate of the model that has the same name, whether or not the model subsamples
    it, as in Pyro. Within a program, and between the particles of a step, a plate that draws its indices draws them
    once.

    Args:
        drawn: indices used by earlier particles; those used here are added.
        of_guide: indices of the guide's plates if the program is the model.
    """

    def __init__(self, drawn: Subsamples, of_guide: Subsamples = NO_SUBSAMPLES):
        self.drawn = drawn
        self.of_guide = of_guide
        self.used: Subsamples = {}
        self.entered: set[str] = set()
        """Plates in which sites were sampled."""
        self.unseen: set[str] = set()
        """Subsampled plates whose indices were drawn before the program ran, or were hidden by ``poutine.block``."""

    def find(self, name: str, distribution: _Subsample, explicit: Any) -> Any:
        """Return the indices of a plate, or None if it has to draw them.

        Args:
            name: name of the plate.
            distribution: its sizes.
            explicit: what the program passes as ``subsample=``; None if nothing.

        Raises:
            ValueError: the plate has other elements here than in the guide, or than earlier in this program.
        """
        size = int(distribution.size)
        if name in self.of_guide:
            indices = self._of_guide(name, size)
            check_agreement(name, distribution, explicit, indices, "in the guide")
            return indices
        if size in self.used.get(name, {}):
            indices = self.used[name][size]
            check_agreement(name, distribution, explicit, indices, "earlier in the same program")
            return indices
        if explicit is not None:
            return explicit
        known = self.drawn.get(name, {}).get(size)
        return known if known is not None and len(known) == number_of(distribution) else None

    def keep(self, name: str, distribution: _Subsample, indices: Any) -> None:
        """Keep the indices that a plate uses."""
        for kept in (self.used, self.drawn):
            kept.setdefault(name, {})[int(distribution.size)] = indices

    def notice(self, frames: Iterable[CondIndepStackFrame]) -> None:
        """Note the plates of a site, and those whose indices were not seen."""
        for frame in frames:
            self.entered.add(frame.name)
            if frame.full_size is not None and frame.size < frame.full_size and frame.name not in self.used:
                self.unseen.add(frame.name)

    def _of_guide(self, name: str, size: int) -> Tensor:
        known = self.of_guide[name]
        if size not in known:
            raise ValueError(
                f"plate {name!r} has {next(iter(known))} elements in the guide and {size} in the model; give it the "
                "same size in both, or another name"
            )
        return known[size]


def check_seen(guide: SubsampleIndices, model: SubsampleIndices) -> None:
    """Raise an error if the indices of a plate are seen in one of guide and model alone, and may differ in the other.

    Raises:
        ValueError: they are.
    """
    for where, unseen, seen in (("guide", guide, model), ("model", model, guide)):
        if names := sorted(unseen.unseen & seen.used.keys()):
            raise ValueError(
                f"the indices of plate {names[0]!r} of the {where} are drawn where they are not seen (the plate was "
                "made before, or poutine.block hides it), and may not be those of the other program; make the plate "
                f"within the {where}, or expose it"
            )


def plates_of_guide_alone(guide: SubsampleIndices, model: SubsampleIndices) -> frozenset[str]:
    """Find the plates in which the guide samples and that the model does not have.

    Raises:
        ValueError: such a plate is subsampled: it would scale the guide's terms of the ELBO and not the model's.
    """
    found = frozenset(guide.entered - model.entered - model.used.keys())
    for name in sorted(found):
        if name in guide.unseen or is_subsampled({name: guide.used.get(name, {})}):
            raise ValueError(
                f"the guide subsamples plate {name!r}, which the model does not have; open a plate of that name in the "
                "model too"
            )
    return found


def number_of(distribution: _Subsample) -> int:
    """Return the number of elements in a plate's subsample."""
    return int(distribution.size if distribution.subsample_size is None else distribution.subsample_size)


def check_agreement(name: str, distribution: _Subsample, explicit: Any, indices: Any, where: str) -> None:
    """Raise an error if a plate asks for other elements than those it has elsewhere.

    Raises:
        ValueError: ``subsample_size`` is another number, or ``subsample`` holds other indices.
    """
    if distribution.subsample_size is not None and number_of(distribution) != len(indices):
        raise ValueError(
            f"plate {name!r} has subsample_size={number_of(distribution)}, but {len(indices)} elements {where}; give "
            "it the same subsample_size, or none in the model, whose plates take the guide's indices"
        )
    if explicit is None or explicit is indices:
        return
    given, other = (torch.as_tensor(x, device="cpu") for x in (explicit, indices))
    if not torch.equal(given, other):
        raise ValueError(
            f"plate {name!r} is given other indices by subsample= than it has {where}, so that latent variables and "
            "data would be of different elements; pass the same indices to guide and model (create_plates= does it "
            "for an automatic guide), or leave subsample= out of the model and index its data by what the plate yields"
        )
