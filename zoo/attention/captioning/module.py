import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo._constraints import COUNT, NOT_NEGATIVE, POSITIVE, Constraint, check_constraints
from zoo.attention.captioning._backbone import (
    BACKBONES,
    CONCATENATED,
    backbone_names,
    feature_shape,
    load_backbone,
    normalize,
)
from zoo.attention.captioning._encoder import GRID, NUM_FEATURES, CellEncoder
from zoo.attention.captioning._features import feature_extractor
from zoo.attention.captioning._generation import sample_captions, search_captions, until_eos
from zoo.attention.captioning.bleu import corpus_bleu
from zoo.attention.captioning.cider import CiderD
from zoo.attention.captioning.network import EOS, Annotations, AttentionDecoder, DecodedCaptions
from zoo.attention.captioning.objective import (
    CaptioningObjective,
    captioning_objective,
    sequence_objective,
    word_mask,
)
from zoo.gradients import Reinforce, RunningStd, make_baseline
from zoo.gradients.estimators import complete_options
from zoo.training import LoadableModule, sum_losses
from zoo.training._optimizers import with_cosine_schedule

LOG_EVERY_N_STEPS = 10
ENCODERS = ("cell_cnn", *BACKBONES, CONCATENATED)
OBJECTIVES = ("cross_entropy", "scst")
REWARDS = ("cider", "bleu4")
CELL_SELECTION = ("argmax", "sample", "expected")
_SIZES = ("embedding_size", "hidden_size", "value_size", "query_size", "num_samples", "beam_size", "max_length")
CONSTRAINTS = {
    **dict.fromkeys(_SIZES, COUNT),
    **dict.fromkeys(
        ("dropout", "expected_fraction"),
        Constraint("between 0 and 1, and below 1", lambda x: 0 <= x < 1),
    ),
    "stride": Constraint("16 or 32", lambda x: x in (16, 32)),
    "policy_weight": NOT_NEGATIVE,
    "ent_coef": NOT_NEGATIVE,
    "length_penalty": NOT_NEGATIVE,
    "lr": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
}
_CHOICES = {"encoder": ENCODERS, "objective": OBJECTIVES, "reward": REWARDS, "cell_selection": CELL_SELECTION}


class Captions(NamedTuple):
    """Captions of a batch of images, and where the model attended to at each word.

    Example:
        >>> model = Captioner(vocabulary=("<eos>", "<unk>", "a", "circle"), image_size=56)
        >>> captions = model(torch.zeros(2, 3, 56, 56, dtype=torch.uint8))
        >>> len(captions.words), captions.probabilities.shape[1:]
        (2, torch.Size([2, 49]))
    """

    words: list[list[str]]
    """Words of each caption, without ``<eos>``."""
    cells: Int64[Tensor, "time images"]
    """Cell of each word, counted row by row from the upper left. What follows the last word has no meaning."""
    probabilities: Float[Tensor, "time images cells"]
    """``α_t``, with which the cells were chosen."""
    log_prob: Float[Tensor, " images"]
    """Log-probability of each caption given its cells, in nats."""


class CaptionBatch(NamedTuple):
    """Batch of images with captions.

    Example:
        >>> words = torch.tensor([[2, 3, 0], [3, 0, 0]]).T[..., None]
        >>> CaptionBatch(torch.rand(2, 49, 320), words, images=torch.tensor([4, 7])).words.shape
        torch.Size([3, 2, 1])
    """

    inputs: Shaped[Tensor, "batch ..."]
    """Images as uint8, or their feature maps if the encoder is a pretrained backbone."""
    words: Int64[Tensor, "time batch captions"]
    """Captions of each image, filled up with ``<eos>``; a caption that is missing consists of ``<eos>`` alone."""
    images: Int64[Tensor, " batch"]
    """Index of each image in its set."""


class Captioner(LoadableModule):
    """Show, attend and tell: a decoder writes a caption word by word, and looks at one cell of the image for each.

    Xu et al., "Show, attend and tell: neural image caption generation with visual attention", 2015. The decoder is
    ``AttentionDecoder``, the objectives are ``captioning_objective`` and, for sequence training,
    ``sequence_objective``; ``zoo.gradients.Reinforce`` estimates the gradient of the choice of cells.

    Args:
        vocabulary: words, ``<eos>`` and ``<unk>`` first.
        image_size: height and width of the images in pixels.
        encoder: ``cell_cnn`` is trained with the decoder; ``efficientnet_lite0``, ``efficientnet_lite1`` and
            ``efficientnet_lite2`` are pretrained and frozen, as is ``efficientnet_lite_concat``, which concatenates the
            channels of the three.
        stride: stride of the feature map of a pretrained encoder: 32, or 16 for four times as many cells.
        attention: ``hard``, ``soft``, or a control: ``uniform``, ``random`` or ``first``; see ``AttentionDecoder``.
        init: ``mean``, or ``learned`` for an initial state that does not depend on the image.
        objective: ``cross_entropy``, or ``scst`` for self-critical sequence training, which starts from the checkpoint
            of ``init_from=``.
        reward: reward of a caption in sequence training, ``cider`` (CIDEr-D) or ``bleu4`` (``sentence_bleu``).
        num_samples: samples of the cells per caption; in sequence training sampled captions per image.
        embedding_size: dimension of word embeddings.
        hidden_size: units of the LSTM.
        value_size: dimension of annotation vectors.
        query_size: dimension in which state and cells are compared.
        dropout: dropout in the decoder.
        expected_fraction: fraction of the training steps in which the context is the expected annotation, as under soft
            attention; 0.5 in the paper, which decides at random for each image; the authors' code decides at random
            for each batch, and here the steps are spread evenly. Backpropagation then trains the attention too, and
            hard attention finds the objects sooner.
        policy_weight: weight of the policy loss, ``λ_r``; the authors' code: 0.1.
        ent_coef: weight of the entropy of ``α_t``, ``λ_e``; the authors' code: 0.002.
        beam_size: beams of the final evaluation.
        length_penalty: see ``beam_search``.
        max_length: maximal number of words of a caption.
        cell_selection: cell that hard attention chooses at evaluation: ``argmax``, ``sample``, or ``expected`` for the
            weighted mean of all cells, as the authors' code does.
        lr: initial learning rate of RAdam, annealed to 0 by a cosine.
        weight_decay: decoupled weight decay, as AdamW's.
        estimator: options of ``Reinforce``: ``baseline`` (one of ``zoo.gradients.BASELINES``, by default
            ``leave_one_out``, in the paper ``moving_average``; in sequence training also ``greedy``, the reward of
            greedy decoding), ``decay`` and ``scale``.

    Raises:
        ValueError: an option has an invalid value.

    Example:
        >>> model = Captioner(vocabulary=("<eos>", "<unk>", "a", "circle"), image_size=56)
        >>> model(torch.zeros(2, 3, 56, 56, dtype=torch.uint8)).log_prob.shape
        torch.Size([2])
    """

    reward_function: Callable[[Tensor, Tensor], Tensor] | None = None
    """Maps indices of images and sampled words ``(time, images, samples)`` to rewards; set by the experiment."""

    def __init__(
        self,
        vocabulary: Sequence[str],
        image_size: int,
        encoder: str = "cell_cnn",
        stride: int = 32,
        attention: str = "hard",
        init: str = "mean",
        objective: str = "cross_entropy",
        reward: str = "cider",
        num_samples: int = 2,
        embedding_size: int = 128,
        hidden_size: int = 256,
        value_size: int = 128,
        query_size: int = 64,
        dropout: float = 0.3,
        expected_fraction: float = 0.5,
        policy_weight: float = 1.0,
        ent_coef: float = 0.01,
        beam_size: int = 5,
        length_penalty: float = 0.0,
        max_length: int = 25,
        cell_selection: str = "argmax",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        estimator: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        vocabulary = tuple(vocabulary)
        estimator = complete_options(estimator, "captioning", provides=["signals"], default_baseline="leave_one_out")
        self.save_hyperparameters()
        _check_options(self.hparams, estimator)
        is_trained = encoder == "cell_cnn"
        self.encoder = CellEncoder(image_size) if is_trained else None
        shape = (GRID, GRID, NUM_FEATURES) if is_trained else feature_shape(encoder, stride, image_size)
        rows, columns, features = shape
        self.decoder = AttentionDecoder(
            features,
            (rows, columns),
            len(vocabulary),
            embedding_size,
            hidden_size,
            value_size,
            query_size,
            attention,
            init,
            dropout,
        )
        make_net = functools.partial(nn.Linear, hidden_size, 1)
        self.uses_greedy_baseline = objective == "scst" and estimator["baseline"] == "greedy"
        name = "none" if self.uses_greedy_baseline else estimator["baseline"]
        extra = ["greedy"] if objective == "scst" else []
        baseline = make_baseline(name, make_net=make_net, sample_dim=-1, decay=estimator["decay"], extra=extra)
        self.reinforce = Reinforce(
            baseline, RunningStd(estimator["decay"]) if estimator["scale"] else None, maximize=True
        )
        if attention in ("uniform", "random"):  # distributed training waits for a gradient of every parameter
            for layer in (self.decoder.to_query, self.decoder.to_key):
                layer.requires_grad_(False)
            self.decoder.key_position.requires_grad_(False)
        if objective == "cross_entropy" and attention not in ("hard", "first"):
            self.reinforce.requires_grad_(False)
        self._validated: list[tuple[list[int], list[list[int]]]] = []

    def forward(
        self, images: UInt8[Tensor, "images 3 height width"], seed: int = 0, beam_size: int | None = None
    ) -> Captions:
        """Caption images of the model's size.

        Args:
            images: pixel values from 0 to 255.
            seed: seed of the cells, if they are sampled.
            beam_size: number of beams; None for the model's.

        Raises:
            ValueError: the images have another type or shape.
        """
        size = self.hparams["image_size"]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"images must be uint8 of shape (images, 3, {size}, {size}), got {images.dtype} of shape "
                f"{tuple(images.shape)}"
            )
        inputs = images if self.encoder is not None else self._extract(images)
        return self.caption(inputs, seed, beam_size)

    @functools.cached_property
    def _extract(self) -> Callable[[Tensor], Tensor]:
        names, stride = backbone_names(self.hparams["encoder"]), self.hparams["stride"]
        extractors = [feature_extractor(load_backbone(name), stride) for name in names]
        return lambda images: torch.cat([extract(images) for extract in extractors], -1)

    def annotate(self, inputs: Shaped[Tensor, "batch ..."]) -> Annotations:
        """Return the annotations of images or feature maps; see ``CaptionBatch``."""
        features = inputs if self.encoder is None else self.encoder(normalize(inputs).to(self.dtype))
        return self.decoder.annotate(features.to(self.dtype))

    def caption(self, inputs: Shaped[Tensor, "batch ..."], seed: int = 0, beam_size: int | None = None) -> Captions:
        """Caption images or feature maps; see ``CaptionBatch`` for the inputs, and ``forward``."""
        words, decoded = self._search(inputs, seed, beam_size or self.hparams["beam_size"])
        texts = [[self.hparams["vocabulary"][word] for word in until_eos(caption)] for caption in words.tolist()]
        log_prob = decoded.word_log_prob.where(word_mask(words.T[..., None]), 0.0).sum(0)
        return Captions(texts, decoded.cells.squeeze(2), decoded.probabilities.squeeze(2), log_prob.squeeze(1))

    def _search(self, inputs: Tensor, seed: int, beam_size: int) -> tuple[Tensor, DecodedCaptions]:
        attention, selection = self.hparams["attention"], self.hparams["cell_selection"]
        max_length, noise = self.hparams["max_length"], None
        if attention == "random" or selection == "sample":
            generator = torch.Generator(self.device).manual_seed(seed)  # the global random state is not used
            noise = torch.rand(max_length, len(inputs), 1, generator=generator, device=self.device)
        with torch.no_grad():
            annotations = self.annotate(inputs)
        return search_captions(
            self.decoder,
            annotations,
            beam_size,
            max_length,
            self.hparams["length_penalty"],
            noise,
            "soft" if selection == "expected" else None,
        )

    def objective(self, batch: CaptionBatch) -> CaptioningObjective:
        """Return the loss terms of a batch."""
        attention, num_samples = self.hparams["attention"], self.hparams["num_samples"]
        cell_is_sampled: Tensor | bool = attention == "hard"
        if self.hparams["objective"] == "scst":
            annotations = self.annotate(batch.inputs)
            words, decoded = sample_captions(self.decoder, annotations, num_samples, self.hparams["max_length"])
            if attention == "first":
                cell_is_sampled = _is_first(words)
            reward = self._rewards(batch, words).to(decoded.word_log_prob)
            return sequence_objective(decoded, word_mask(words), reward, self.reinforce, cell_is_sampled)
        if attention == "hard" and self._uses_expected_context():
            attention = "soft"
        if attention in ("soft", "uniform"):
            num_samples = 1
        if attention == "first":
            cell_is_sampled = _is_first(batch.words)
        noise = torch.rand(*batch.words.shape[:2], num_samples, device=self.device)
        decoded = self.decoder.decode(self.annotate(batch.inputs), batch.words, noise, attention=attention)
        reinforce = self.reinforce if attention in ("hard", "first") else None
        return captioning_objective(decoded, word_mask(batch.words), reinforce, cell_is_sampled)

    def _uses_expected_context(self) -> bool:
        """Return whether this step is one of those with expected context, which are spread evenly over the steps."""
        fraction = self.hparams["expected_fraction"]
        return int((self.global_step + 1) * fraction) > int(self.global_step * fraction)

    def _rewards(self, batch: CaptionBatch, words: Tensor) -> Tensor:
        """Return the reward of sampled captions, less that of greedy decoding if it is the baseline."""
        if self.reward_function is None:
            raise ValueError("objective=scst needs rewards: set the attribute reward_function of the model")
        reward = self.reward_function(batch.images, words)
        if self.uses_greedy_baseline:
            is_training = self.training
            self.eval()
            greedy, _ = self._search(batch.inputs, seed=0, beam_size=1)
            self.train(is_training)
            reward = reward - self.reward_function(batch.images, greedy.T[..., None])
        return reward

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted sum of the loss terms."""
        objective = self.objective(CaptionBatch(*batch))
        if batch_idx % LOG_EVERY_N_STEPS == 0:
            per_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
            per_epoch["batch_size"] = len(batch[0])
            self.log_dict(objective.metrics(), **per_epoch)
        # Distributed training waits for a gradient of every parameter, also where no cell was sampled.
        unused = sum(weight.sum() for weight in self.reinforce.parameters() if weight.requires_grad)
        terms = {
            "words": objective.nll,
            "policy": self.hparams["policy_weight"] * objective.policy_loss,
            "baseline": objective.baseline_loss + 0 * unused,
            "entropy": -self.hparams["ent_coef"] * objective.entropy,
        }
        return sum_losses(terms, step=self.global_step)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Log the negative log-likelihood per word with one sample of the cells, and caption the images greedily."""
        inputs, words, _ = CaptionBatch(*batch)
        noise = torch.rand(
            words.shape, generator=torch.Generator(self.device).manual_seed(batch_idx), device=self.device
        )
        log_prob = self.decoder.decode(self.annotate(inputs), words, noise).word_log_prob
        mask = word_mask(words) & (words[0] != EOS)  # a caption that starts with <eos> is missing
        self.log("validation_nll", -log_prob[mask].mean(), batch_size=int(mask.sum()), sync_dist=True)
        references = [[until_eos(caption) for caption in captions] for captions in words.permute(1, 2, 0).tolist()]
        candidates = [until_eos(caption) for caption in self._search(inputs, batch_idx, beam_size=1)[0].tolist()]
        self._validated += zip(candidates, references, strict=True)

    def on_validation_epoch_end(self) -> None:
        """Log BLEU-4 and CIDEr-D of the greedy captions of all images."""
        validated, self._validated = self._validated, []
        if self.trainer.world_size > 1:
            shares: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(shares, validated)
            validated = [pair for share in shares for pair in share]
        references = [[caption for caption in captions if caption] for _, captions in validated]
        captions = [candidate for candidate, _ in validated]
        self.log("validation_bleu4", corpus_bleu(captions, references)[3], sync_dist=True)
        cider = CiderD(references).scores(captions).mean().item()
        self.log("validation_cider", cider, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return RAdam with a learning rate annealed to 0 by a cosine over the whole run.

        Liu, Jiang, He, Chen, Liu, Gao & Han, "On the variance of the adaptive learning rate and beyond", 2020: its
        first steps are small. With those of AdamW, attention can settle on only one of the two words for an object.
        """
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        optimizer = torch.optim.RAdam(self.parameters(), lr=lr, weight_decay=weight_decay, decoupled_weight_decay=True)
        return with_cosine_schedule(self, optimizer)


def _is_first(words: Tensor) -> Tensor:
    """Return whether a word is the first of its caption, of shape ``(time, 1, 1)``."""
    return (torch.arange(len(words), device=words.device) == 0)[:, None, None]


def _check_options(options: Mapping[str, Any], estimator: Mapping[str, Any]) -> None:
    """Check the range of the options, and that they fit each other."""
    check_constraints(options, CONSTRAINTS)
    for name, choices in _CHOICES.items():
        if options[name] not in choices:
            raise ValueError(f"there is no {name} {options[name]!r}; choose one of {', '.join(choices)}")
    attention, selection, scst = options["attention"], options["cell_selection"], options["objective"] == "scst"
    if selection != "argmax" and attention != "hard":
        raise ValueError(f"cell_selection={selection} is for attention=hard, got attention={attention}; remove it")
    samples = scst or attention in ("hard", "first")
    if samples and "leave_one_out" in estimator["baseline"] and options["num_samples"] < 2:
        raise ValueError(
            f"estimator.baseline={estimator['baseline']} compares samples of the same image: num_samples must be at "
            f"least 2, got {options['num_samples']}"
        )
    if scst and options["policy_weight"] == 0:
        raise ValueError("policy_weight=0 leaves sequence training nothing to learn from; use 1")
