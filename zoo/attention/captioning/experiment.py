import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.attention.captioning._backbone import backbone_names
from zoo.attention.captioning._batches import BucketedBatches, CaptionExamples
from zoo.attention.captioning._evaluation import (
    GeneratedSet,
    caption_scores,
    generate_captions,
    hit_rate,
    negative_log_likelihood,
)
from zoo.attention.captioning._features import cached_features
from zoo.attention.captioning.bleu import sentence_bleu
from zoo.attention.captioning.cider import CiderD
from zoo.attention.captioning.meteor import corpus_meteor
from zoo.attention.captioning.module import CELL_SELECTION, Captioner
from zoo.attention.captioning.objective import word_mask
from zoo.data import Batches, CaptionData, CaptionSet, ImageFiles
from zoo.plotting import caption_attention, save_figure
from zoo.training import Experiment, Loaders, write_json

logger = logging.getLogger(__name__)

EVAL_BATCH_SIZE = 100
NLL_SAMPLES = 10
NUM_IMAGES_SHOWN = 4
CONTROLS: dict[str, dict[str, Any]] = {  # cells with which trained weights are evaluated too
    "random_cells": {"attention": "random"},
    "mean_of_cells": {"attention": "uniform"},
    "cells_of_another_image": {"of_next_image": True},
}
DESCRIPTIONS = {
    "random_cells": "random cells",
    "mean_of_cells": "the mean of all cells",
    "cells_of_another_image": "the cells sampled for another image",
}


class CaptioningExperiment(Experiment):
    """Training of ``Captioner`` on captioned images, and its final evaluation.

    Args:
        data: training, validation and test images with captions.
        estimator: options of ``Reinforce``; see ``Captioner``.
        batch_size: captions a step, on each device; in sequence training images.
        seed: seed of the order of the captions.
        options: options of ``Captioner``.

    Example:
        >>> from zoo.data import load_captioned_scenes
        >>> data = load_captioned_scenes(num_train=8, num_validation=4, num_test=4)
        >>> CaptioningExperiment(data, {"baseline": "leave_one_out"}, batch_size=4, seed=1).name
        'captioned-scenes'
    """

    monitor, monitor_mode = "validation_cider", "max"

    def __init__(self, data: CaptionData, estimator: Mapping[str, Any], batch_size: int, seed: int, **options: Any):
        self.data, self.name = data, data.name
        self.module = Captioner(
            vocabulary=data.vocabulary.words, image_size=data.image_size, estimator=estimator, **options
        )
        self.needs_initial_weights = is_scst = self.module.hparams["objective"] == "scst"
        train = self._examples(data.train, per_image=is_scst)
        validation = self._examples(data.validation, per_image=True)
        if is_scst:
            self.module.reward_function = _CaptionReward(self.module.hparams["reward"], self._encode(data.train))
        batches = Batches if is_scst else BucketedBatches
        self.loaders = Loaders(
            train=lambda rank, ranks: batches(train, batch_size, seed, rank, ranks),
            validation=lambda rank, ranks: Batches(validation, EVAL_BATCH_SIZE, None, rank, ranks),
        )

    def _encode(self, captioned: CaptionSet) -> list[list[list[int]]]:
        """Return the indices of the words of each caption of each image."""
        vocabulary = self.data.vocabulary
        return [[vocabulary.encode(caption) for caption in captions] for captions in captioned.captions]

    def _examples(self, captioned: CaptionSet, per_image: bool) -> CaptionExamples:
        return CaptionExamples(self._inputs(captioned), self._encode(captioned), per_image)

    def _inputs(self, captioned: CaptionSet) -> Tensor | list[np.ndarray]:
        """Return the images, or their feature maps by each backbone if the encoder is pretrained."""
        images, encoder = captioned.images, self.module.hparams["encoder"]
        if encoder == "cell_cnn":
            return images if isinstance(images, Tensor) else torch.stack(list(images))
        digest, stride = _digest(images), self.module.hparams["stride"]
        return [cached_features(images, digest, name, stride) for name in backbone_names(encoder)]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return the metrics of ``evaluate``."""
        return self.evaluate(checkpoint, folder)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return the test metrics of a checkpoint, and save the captions of the test images and figures of some.

        METEOR is among them where it is available, and under hard attention metrics with other choices of cells. Those
        of greedy captions are there too, as sequence training is compared by them.
        """
        model, test = Captioner.load(checkpoint), self.data.load_test()
        by_image, by_caption = self._examples(test, per_image=True), self._examples(test, per_image=False)
        generated = generate_captions(model, by_image)
        metrics = {f"test_{name}": score for name, score in caption_scores(generated.words, test.captions).items()}
        greedy = caption_scores(generate_captions(model, by_image, beam_size=1).words, test.captions)
        metrics |= {f"test_{name}_greedy": greedy[name] for name in ("bleu4", "cider")}
        meteor, reason = corpus_meteor(generated.words, test.captions)
        if meteor is None:
            logger.warning(f"METEOR is left out: {reason}")
        else:
            metrics["test_meteor"] = meteor
        nll = negative_log_likelihood(model, by_caption, NLL_SAMPLES)
        num_words = by_caption.lengths.sum()
        metrics["test_nll"] = (nll.sum() / num_words).item()
        if test.boxes is not None:
            exact = [tuple(words) in captions for words, captions in zip(generated.words, test.captions, strict=True)]
            metrics["test_exact"] = sum(exact) / len(exact)
            metrics["test_hit_rate"] = hit_rate(model, test, by_image)
            metrics["test_hit_rate_random"] = hit_rate(model, test, by_image, attention="random")
        per_image = CiderD(test.captions).scores(generated.words)
        _save_captions(test, generated, per_image, nll, folder / "test_captions.json")
        _draw_captions(test, generated, per_image, folder)
        if model.hparams["attention"] == "hard":
            for name, options in CONTROLS.items():
                nll = negative_log_likelihood(model, by_caption, NLL_SAMPLES, **options)
                metrics[f"test_nll_{name}"] = (nll.sum() / num_words).item()
            for selection in CELL_SELECTION:
                model.hparams["cell_selection"] = selection
                scores = caption_scores(generate_captions(model, by_image).words, test.captions)
                metrics |= {f"test_{name}_{selection}_cells": scores[name] for name in ("bleu4", "cider")}
        return metrics

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary of the test metrics in sentences."""
        bleu = " / ".join(f"{100 * metrics[f'test_bleu{n}']:.1f}" for n in range(1, 5))
        lines = [
            f"test images of {self.data.name}: BLEU-1 to BLEU-4 {bleu}, CIDEr-D {metrics['test_cider']:.3f}"
            + (f", METEOR {100 * metrics['test_meteor']:.1f}" if "test_meteor" in metrics else ""),
            f"  greedy captions: BLEU-4 {100 * metrics['test_bleu4_greedy']:.1f}, "
            f"CIDEr-D {metrics['test_cider_greedy']:.3f}",
            f"  negative log-likelihood: {metrics['test_nll']:.3f} nats per word",
        ]
        if "test_exact" in metrics:
            lines.append(
                f"  {metrics['test_exact']:.1%} of the captions equal a reference; {metrics['test_hit_rate']:.1%} of "
                "the cells lie on the object that the word names "
                f"({metrics['test_hit_rate_random']:.1%} of random cells)"
            )
        for selection in CELL_SELECTION:
            if (bleu4 := metrics.get(f"test_bleu4_{selection}_cells")) is not None:
                cider = metrics[f"test_cider_{selection}_cells"]
                lines.append(f"  cell_selection={selection}: BLEU-4 {100 * bleu4:.1f}, CIDEr-D {cider:.3f}")
        for name, where in DESCRIPTIONS.items():
            if (nll := metrics.get(f"test_nll_{name}")) is not None:
                lines.append(f"  {nll:.3f} nats per word with {where}")
        return "\n".join(lines)


def _save_captions(test: CaptionSet, generated: GeneratedSet, cider: Tensor, nll: Tensor, path: Path) -> None:
    """Save the caption of each test image, its CIDEr-D, and the likelihood of its references."""
    counts = [len(captions) for captions in test.captions]
    words = [sum(map(len, captions)) + len(captions) for captions in test.captions]
    rows = [
        {"caption": " ".join(caption), "cider": score, "nll": likelihood.sum().item(), "reference_words": number}
        for caption, score, likelihood, number in zip(
            generated.words, cider.tolist(), nll.split(counts), words, strict=True
        )
    ]
    write_json(path, {"captions": rows})


def _draw_captions(test: CaptionSet, generated: GeneratedSet, scores: Tensor, folder: Path) -> None:
    """Save the first test images, and the best, median and worst by CIDEr-D, with the attention at each word."""
    order = scores.argsort(stable=True).tolist()
    middle = len(order) // 2
    chosen = {"worst": order[:2], "median": order[middle : middle + 2], "best": order[-2:][::-1]}
    ranked = {i: name for name in ("best", "median", "worst") for i in chosen[name]}
    headings = [f"{name}, CIDEr-D {scores[i]:.2f}: {' '.join(generated.words[i])}" for i, name in ranked.items()]
    first = range(min(NUM_IMAGES_SHOWN, len(test)))
    for file, shown, lines in (("captions.png", list(first), None), ("best_and_worst.png", list(ranked), headings)):
        figure = caption_attention(
            torch.stack([test.images[i] for i in shown]) / 255,
            [generated.words[i] for i in shown],
            pad_sequence([generated.probabilities[i] for i in shown], batch_first=True),
            pad_sequence([generated.cells[i] for i in shown], batch_first=True),
            lines,
        )
        save_figure(figure, folder / file)


class _CaptionReward:
    """CIDEr-D or BLEU-4 of sampled captions against the references of their images.

    ``<eos>`` is a token of both, so that a caption that breaks off is rewarded less: without it, captions that end in
    "with a" become frequent.
    """

    def __init__(self, name: str, references: Sequence[Sequence[list[int]]]):
        self._references = references
        self._cider = CiderD(references) if name == "cider" else None

    def __call__(self, images: Tensor, words: Tensor) -> Tensor:
        """Return the reward of each sample, of shape ``(images, samples)``."""
        lengths = word_mask(words).sum(0).flatten().tolist()
        captions = [caption[:n] for caption, n in zip(words.flatten(1).T.tolist(), lengths, strict=True)]
        of_image = images.repeat_interleave(words.shape[-1]).tolist()
        if self._cider is not None:
            rewards = self._cider.scores(captions, of_image)
        else:
            pairs = zip(captions, of_image, strict=True)
            rewards = torch.tensor([sentence_bleu(caption, self._references[image]) for caption, image in pairs])
        return rewards.view(words.shape[1:]).to(images.device)


def _digest(images: Sequence[Tensor] | Tensor) -> str:
    """Return the SHA-256 of the files of images, or of their pixels."""
    total = hashlib.sha256()
    for part in images.paths if isinstance(images, ImageFiles) else images:
        total.update(part.read_bytes() if isinstance(part, Path) else part.numpy().tobytes())
    return total.hexdigest()
