import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from zoo.attention.captioning._batches import CaptionExamples
from zoo.attention.captioning.bleu import corpus_bleu
from zoo.attention.captioning.cider import CiderD
from zoo.attention.captioning.module import CaptionBatch, Captioner
from zoo.attention.captioning.objective import word_mask
from zoo.data import Batches, CaptionSet

BATCH_SIZE = 100
Words = Sequence[str]


class GeneratedSet(NamedTuple):
    """Generated captions of a set of images."""

    words: list[list[str]]
    cells: list[Int64[Tensor, " time"]]
    probabilities: list[Float[Tensor, "time cells"]]


def generate_captions(model: Captioner, examples: CaptionExamples, beam_size: int | None = None) -> GeneratedSet:
    """Caption every image of a set; None for the model's number of beams."""
    words: list[list[str]] = []
    cells: list[Tensor] = []
    probabilities: list[Tensor] = []
    for i, batch in enumerate(Batches(examples, BATCH_SIZE)):
        captions = model.caption(batch.inputs.to(model.device), seed=i, beam_size=beam_size)
        words += captions.words
        cells += captions.cells.T.cpu()
        probabilities += captions.probabilities.transpose(0, 1).cpu()
    return GeneratedSet(words, cells, probabilities)


def caption_scores(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Return BLEU-1 to BLEU-4 and CIDEr-D."""
    scores = {f"bleu{n}": bleu for n, bleu in enumerate(corpus_bleu(candidates, references), 1)}
    return scores | {"cider": CiderD(references).scores(candidates).mean().item()}


def negative_log_likelihood(
    model: Captioner,
    examples: CaptionExamples,
    num_samples: int,
    attention: str | None = None,
    of_next_image: bool = False,
) -> Float[Tensor, " captions"]:
    """Return ``-log 1/K Σ_k p(y | s_k)`` of each caption in nats, an upper bound of ``-log p(y)`` on average.

    Args:
        model: the model.
        examples: a set with one example for each caption.
        num_samples: number of samples of the cells, ``K``.
        attention: see ``AttentionDecoder.attend``.
        of_next_image: whether the cells are those that the model samples for the same caption and the next image.
    """
    nll = torch.empty(len(examples))
    by_length = examples.lengths.argsort(stable=True)  # so that little of a batch is padding
    for i, chosen in enumerate(by_length.split(BATCH_SIZE)):
        batch = CaptionBatch(*(x.to(model.device) for x in examples[chosen]))
        noise = torch.rand(
            *batch.words.shape[:2],
            num_samples,
            generator=torch.Generator(model.device).manual_seed(i),
            device=model.device,
        )
        with torch.no_grad():
            annotations, cells = model.annotate(batch.inputs), None
            if of_next_image:
                images = (batch.images.cpu() + 1) % len(examples.inputs)
                others = model.annotate(examples.inputs_of(images).to(model.device))
                cells = model.decoder.decode(others, batch.words, noise).cells
            decoded = model.decoder.decode(annotations, batch.words, noise, cells, attention)
        mask = word_mask(batch.words)
        log_prob = decoded.word_log_prob.where(mask, 0.0).sum(0).logsumexp(-1) - math.log(num_samples)
        nll[chosen] = -log_prob.cpu()
    return nll


def hit_rate(model: Captioner, captioned: CaptionSet, examples: CaptionExamples, attention: str | None = None) -> float:
    """Return how often the cell sampled at a word that names an object overlaps the object.

    Liu, Mao, Sha & Yuille, "Attention correctness in neural image captioning", 2017, measure the attention inside the
    object's box; here it is that of sampled cells, at the words of the first reference.
    """
    hits = total = 0
    assert captioned.boxes is not None
    for i, batch in enumerate(Batches(examples, BATCH_SIZE)):
        words = batch.words[..., :1].to(model.device)
        noise = torch.rand(words.shape, generator=torch.Generator(model.device).manual_seed(i), device=model.device)
        with torch.no_grad():
            cells = model.decoder.decode(
                model.annotate(batch.inputs.to(model.device)), words, noise, None, attention
            ).cells
        side = math.isqrt(model.decoder.key_position.shape[0])
        cell_size = model.hparams["image_size"] / side
        for column, image in enumerate(batch.images.tolist()):
            for box, cell in zip(captioned.boxes[image][0], cells[:, column, 0].tolist(), strict=False):
                if box is None:
                    continue
                row, col = divmod(cell, side)
                top, left, bottom, right = (edge / cell_size for edge in box)
                hits += top < row + 1 and bottom > row and left < col + 1 and right > col
                total += 1
    return hits / total
