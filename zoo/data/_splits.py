import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from zoo.data.images import ImageSet


def border_median(images: UInt8[Tensor, "n channels height width"]) -> tuple[float, ...]:
    """Return the median of the outermost pixels of all images, per channel, from 0 to 1."""
    inside = torch.zeros(images.shape[2:], dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    border = images[..., ~inside].transpose(0, 1).flatten(1)
    return tuple(level / 255 for level in border.median(dim=1).values.tolist())


def split_validation(data: ImageSet, count: int | None, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """Split off ``count`` images, None for a tenth; return training and validation set. See ``stratified_split``."""
    count = len(data) // 10 if count is None else count
    if count == 0:
        return data, None
    kept, held_out = stratified_split(data.labels, count, seed)
    return ImageSet(*data[kept]), ImageSet(*data[held_out])


def stratified_split(
    labels: Int64[Tensor, " n"], count: int, seed: int
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " count"]]:
    """Return indices to keep and ``count`` indices to hold out, with all classes in proportion.

    After a shuffle, image ``i`` of the ``m`` in its class has the rank ``(i + ½) / m``. Those with the smallest ranks
    are held out: the same fraction of every class. The global random state is neither used nor changed.
    """
    if count < 0:
        raise ValueError(f"the number of images to hold out must be 0 or more, got {count}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    position = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = (position + 0.5) / sizes.repeat_interleave(sizes)
    order = by_class[rank.argsort(stable=True)]
    held_out, kept = order[:count], order[count:]
    if ((labels[kept].bincount(minlength=len(sizes)) == 0) & (sizes > 0)).any():
        raise ValueError(f"cannot hold out {count} of {len(labels)} images: each class must keep one for training")
    return kept.sort().values, held_out.sort().values
