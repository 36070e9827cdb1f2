import torch
from jaxtyping import Int64
from torch import Tensor

from zoo.data.images import ImageSet


def stratified_split(
    labels: Int64[Tensor, " n"], count: int, seed: int
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " count"]]:
    """Choose ``count`` indices to hold out, with every class in proportion; the others are kept.

    After a shuffle, picture ``i`` of the ``m`` in its class stands at the fraction ``(i + ½) / m`` of it.
    Those with the smallest fractions are held out, so that all classes give up to the same fraction.

    Args:
        labels: class of each picture, counted from 0.
        count: how many to hold out.
        seed: of the shuffle; the global random state is neither used nor changed.

    Returns:
        The kept and the held out, both in ascending order.

    Raises:
        ValueError: ``count`` is negative, or so large that a class would have nothing left to train on.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> kept, held_out = stratified_split(labels, 2, seed=0)
        >>> labels[kept], labels[held_out]
        (tensor([0, 0, 0, 1, 1, 1]), tensor([0, 1]))
    """
    if count < 0:
        raise ValueError(f"the number of pictures to hold out must be 0 or more, got {count}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    place = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    fraction = (place + 0.5) / sizes.repeat_interleave(sizes)
    order = by_class[fraction.argsort(stable=True)]
    held_out, kept = order[:count], order[count:]
    if ((labels[kept].bincount(minlength=len(sizes)) == 0) & (sizes > 0)).any():
        raise ValueError(f"cannot hold out {count} of {len(labels)} pictures: each class must keep one to train on")
    return kept.sort().values, held_out.sort().values


def hold_out(data: ImageSet, count: int | None, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """Training and validation set out of one: see ``stratified_split``.

    Args:
        data: all pictures that may be trained on.
        count: how many to hold out; None for a tenth, rounded down; 0 for no validation set.
        seed: of the split; independent of the seed of the training.

    Raises:
        ValueError: ``count`` is negative, or so large that a class would have nothing left to train on.

    Example:
        >>> digits = ImageSet(torch.zeros(20, 1, 28, 28, dtype=torch.uint8), torch.arange(20) % 2)
        >>> train, validation = hold_out(digits, None, seed=0)
        >>> len(train), len(validation)
        (18, 2)
    """
    count = len(data) // 10 if count is None else count
    if count == 0:
        return data, None
    kept, held_out = stratified_split(data.labels, count, seed)
    return ImageSet(*data[kept]), ImageSet(*data[held_out])
