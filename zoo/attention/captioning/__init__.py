"""Show, Attend and Tell: image captions by hard attention, Xu et al., 2015."""

from zoo.attention.captioning.bleu import corpus_bleu, sentence_bleu
from zoo.attention.captioning.cider import CiderD
from zoo.attention.captioning.decoding import BeamSearchResult, beam_search
from zoo.attention.captioning.experiment import CaptioningExperiment
from zoo.attention.captioning.meteor import MeteorScore, corpus_meteor
from zoo.attention.captioning.module import CaptionBatch, Captioner, Captions
from zoo.attention.captioning.network import (
    Annotations,
    Attention,
    AttentionDecoder,
    DecodedCaptions,
    DecoderState,
)
from zoo.attention.captioning.objective import (
    CaptioningObjective,
    captioning_objective,
    sequence_objective,
    word_mask,
)

__all__ = [
    "Annotations",
    "Attention",
    "AttentionDecoder",
    "BeamSearchResult",
    "CaptionBatch",
    "Captioner",
    "CaptioningExperiment",
    "CaptioningObjective",
    "Captions",
    "CiderD",
    "DecodedCaptions",
    "DecoderState",
    "MeteorScore",
    "beam_search",
    "captioning_objective",
    "corpus_bleu",
    "corpus_meteor",
    "sentence_bleu",
    "sequence_objective",
    "word_mask",
]
