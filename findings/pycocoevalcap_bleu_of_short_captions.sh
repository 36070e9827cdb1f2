#!/usr/bin/env bash
# Guess, written down before running: BLEU-4 of a caption that equals its only reference is 1 in pycocoevalcap, as its
# brevity penalty is 1 and every n-gram of it matches; or it is 0 for captions of fewer than four words, which have no
# 4-gram.
# Seen in 1.2: neither. The precision of n-grams that do not exist is 1e-15 / 1e-9, so that a correct caption of three
# words has BLEU-4 .032, of two .001, and of four 1. Where single captions are rewarded or ranked, correct short ones
# count as failures. A caption without a single common word has not 0 but about 1e-16. Sums over a whole set, where most
# captions are longer, hide both.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocoevalcap==1.2

"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys
from importlib.metadata import version

from pycocoevalcap.bleu.bleu import Bleu

print("pycocoevalcap", version("pycocoevalcap"))


def bleu4(candidate, reference):
    _, of_images = Bleu(4).compute_score({0: [reference]}, {0: [candidate]}, verbose=0)
    return of_images[3][0]


expected = {"a dog": 1e-3, "a red dog": 10**-1.5, "a red dog runs": 1.0, "a red dog runs home": 1.0}
for caption, value in expected.items():
    found = bleu4(caption, caption)
    print(f"BLEU-4 of {caption!r} against itself: {found:.5f}")
    if not math.isclose(found, value, rel_tol=1e-3):
        sys.exit(f"changed: was {value:.5f}")
nothing = bleu4("one two three four", "a red dog runs")
print(f"BLEU-4 of a caption without a common word: {nothing:.1e}")
if not 0 < nothing < 1e-12:
    sys.exit("changed: was positive and below 1e-12")
PYTHON
