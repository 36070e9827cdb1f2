#!/usr/bin/env bash
# Guess, written down before running: in pycocoevalcap, the usual scorer of captions, the class Cider computes CIDEr,
# the mean cosine of tf-idf vectors of n-grams; CIDEr-D, which clips repeated words and punishes other lengths, would be
# a class or an option of its own, as the paper has them as two metrics.
# Seen in 1.2: Cider is CIDEr-D, and CIDEr is not there. A candidate that says its reference twice has CIDEr 9.0 and is
# given 3.6. As document frequencies come from the references that are scored, a set of one image scores 0 whatever the
# candidate is. And the argument n is not passed on: n=1, for single words alone, ends in an IndexError. Tables that call
# their metric "CIDEr" are mostly made with this class.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocoevalcap==1.2

"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys
from importlib.metadata import version

from collections import Counter

from pycocoevalcap.cider.cider import Cider

print("pycocoevalcap", version("pycocoevalcap"))
references = {0: ["red dog runs home"], 1: ["blue cat sleeps well"], 2: ["green bird sings loud"]}


def score(candidate, references=references):
    candidates = {image: [candidate if image == 0 else "nothing"] for image in references}
    return float(Cider().compute_score(references, candidates)[1][0])


def cider(candidate, reference):
    """CIDEr where all n-grams of the references are equally rare, so that their weights cancel."""
    cosines = []
    for n in range(1, 5):
        x, y = (Counter(zip(*(text.split()[i:] for i in range(n)))) for text in (candidate, reference))
        dot = sum(x[ngram] * y[ngram] for ngram in x)
        cosines.append(dot / math.sqrt(sum(c * c for c in x.values()) * sum(c * c for c in y.values())))
    return 10 * sum(cosines) / 4


once = references[0][0]
twice = f"{once} {once}"
alone = score(once, {0: references[0]})
try:
    Cider(n=1).compute_score(references, references)
    words = "works"
except IndexError:
    words = "IndexError"
print(f"the reference itself: {score(once):.4f}, by definition {cider(once, once):.4f}")
print(f"the reference said twice: {score(twice):.4f}, CIDEr by definition {cider(twice, once):.4f}")
print(f"the reference itself in a set of one image: {alone:.4f}; n=1: {words}")
expected = abs(score(once) - 10) < 1e-9 and cider(twice, once) - score(twice) > 4 and alone == 0
sys.exit(0 if expected and words == "IndexError" else "the behavior has changed")
PYTHON
