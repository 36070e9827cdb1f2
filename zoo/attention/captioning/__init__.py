"""Show, Attend and Tell: image captions by hard attention, Xu et al., 2015."""

from zoo.attention.captioning.bleu import corpus_bleu
from zoo.attention.captioning.cider import CiderD
from zoo.attention.captioning.meteor import MeteorScore, corpus_meteor

__all__ = ["CiderD", "MeteorScore", "corpus_bleu", "corpus_meteor"]
