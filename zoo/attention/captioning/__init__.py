"""Show, Attend and Tell: image captions by hard attention, Xu et al., 2015."""

from zoo.attention.captioning.bleu import corpus_bleu
from zoo.attention.captioning.cider import CiderD

__all__ = ["CiderD", "corpus_bleu"]
