"""Our metrics against pycocoevalcap on the human captions of Flickr8k, where the package and the data are there."""

import os
from pathlib import Path

import numpy as np
import pytest

from zoo.attention.captioning import CiderD, corpus_bleu, corpus_meteor
from zoo.data import load_flickr8k

ROOT = Path(os.environ.get("ZOO_DATA", "")) / "flickr8k"


@pytest.fixture(scope="module")
def human():
    """The fifth caption of each test photograph, and the other four."""
    if not (ROOT / "Flickr8k.token.txt").is_file():
        pytest.skip("Flickr8k is not in $ZOO_DATA/flickr8k")
    captions = load_flickr8k(ROOT).load_test().captions
    return [texts[4] for texts in captions], [texts[:4] for texts in captions]


def as_text(candidates, references):
    return (
        {image: [" ".join(caption) for caption in captions] for image, captions in enumerate(references)},
        {image: [" ".join(caption)] for image, caption in enumerate(candidates)},
    )


def test_bleu_of_human_captions_is_that_of_pycocoevalcap(human):
    package = pytest.importorskip("pycocoevalcap.bleu.bleu")
    expected, _ = package.Bleu(4).compute_score(*as_text(*human), verbose=0)
    assert corpus_bleu(*human) == pytest.approx(expected, rel=0, abs=1e-9)


def test_cider_d_of_human_captions_is_that_of_pycocoevalcap(human):
    package = pytest.importorskip("pycocoevalcap.cider.cider")  # whose Cider clips and penalizes length: it is CIDEr-D
    mean, scores = package.Cider().compute_score(*as_text(*human))
    found = CiderD(human[1]).scores(human[0])
    assert found.mean().item() == pytest.approx(mean, rel=0, abs=1e-9)
    np.testing.assert_allclose(found, scores, rtol=0, atol=1e-9)


def test_meteor_of_human_captions_is_that_of_pycocoevalcap(human):
    package = pytest.importorskip("pycocoevalcap.meteor.meteor")
    some = human[0][:50], human[1][:50]
    score, reason = corpus_meteor(*some)
    if score is None:
        pytest.skip(reason)
    meteor = package.Meteor()
    expected, _ = meteor.compute_score(*as_text(*some))
    for stream in (meteor.meteor_p.stdout, meteor.meteor_p.stderr):  # which the package leaves open
        stream.close()
    assert score == pytest.approx(expected, abs=1e-9)


def test_human_captions_reach_the_scores_in_the_documentation(human):
    assert [round(100 * score, 1) for score in corpus_bleu(*human)] == [61.9, 42.1, 28.0, 18.7]
    assert CiderD(human[1]).scores(human[0]).mean().item() == pytest.approx(0.79, abs=0.005)
