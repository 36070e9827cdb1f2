from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from zoo.attention.captioning.module import CaptionBatch
from zoo.data import Batches

BATCHES_PER_GROUP = 50


class CaptionExamples:
    """Images with captions as indices of words: one example for each caption, or for each image.

    Args:
        inputs: images as uint8, or their feature maps by each backbone, whose channels are concatenated.
        captions: indices of the words of the captions of each image, which end with ``<eos>``.
        per_image: whether an example is an image with all its captions, instead of one caption.

    Example:
        >>> examples = CaptionExamples(torch.zeros(2, 3, 4, 4), [[[5, 0]], [[6, 7, 0], [6, 0]]])
        >>> len(examples), examples.lengths.tolist()
        (3, [2, 3, 2])
        >>> examples[torch.tensor([2, 0])].words.squeeze(-1).T.tolist()
        [[6, 0], [5, 0]]
    """

    def __init__(
        self, inputs: Tensor | Sequence[np.ndarray], captions: Sequence[Sequence[list[int]]], per_image: bool = False
    ):
        self.inputs = inputs
        self._examples: list[tuple[int, Sequence[list[int]]]] = []
        for image, of_image in enumerate(captions):
            self._examples += [(image, of_image)] if per_image else [(image, [caption]) for caption in of_image]
        self.lengths = torch.tensor([max(map(len, of_example)) for _, of_example in self._examples])

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Int64[Tensor, " batch"]) -> CaptionBatch:
        chosen = [self._examples[i] for i in index.tolist()]
        images = torch.tensor([image for image, _ in chosen])
        time = int(self.lengths[index].max())
        words = torch.zeros(time, len(chosen), max(len(captions) for _, captions in chosen), dtype=torch.long)
        for i, (_, captions) in enumerate(chosen):
            for j, caption in enumerate(captions):
                words[: len(caption), i, j] = torch.tensor(caption)
        return CaptionBatch(self.inputs_of(images), words, images)

    def inputs_of(self, images: Int64[Tensor, " batch"]) -> Shaped[Tensor, "batch ..."]:
        """Return the inputs of images by their index."""
        if isinstance(self.inputs, Tensor):
            return self.inputs[images]
        return torch.cat([torch.from_numpy(features[images]) for features in self.inputs], -1)


class BucketedBatches(Batches):
    """``Batches`` whose captions have similar lengths, so that little of a batch is padding.

    The shuffled examples are sorted by length within groups of 50 batches, and the batches are shuffled again.

    Example:
        >>> examples = CaptionExamples(torch.zeros(4, 3, 4, 4), [[[5, 0]], [[6, 7, 0]], [[5, 0]], [[6, 6, 0]]])
        >>> sorted(len(batch.words) for batch in BucketedBatches(examples, batch_size=2, seed=0))
        [2, 3]
    """

    data: CaptionExamples

    def _indices(self) -> Int64[Tensor, " share"]:
        shuffled = super()._indices()
        batches: list[Tensor] = []
        for group in shuffled.split(self.batch_size * BATCHES_PER_GROUP):
            batches += group[self.data.lengths[group].argsort(stable=True)].split(self.batch_size)
        whole = len(shuffled) // self.batch_size  # a smaller batch stays the last
        order = torch.randperm(whole, generator=self._generator()).tolist()
        return torch.cat([*(batches[i] for i in order), *batches[whole:]])
