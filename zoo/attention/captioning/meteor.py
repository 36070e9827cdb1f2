import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from zoo.attention.captioning._ngrams import check_candidates

JAR = Path("meteor", "meteor-1.5.jar")


class MeteorScore(NamedTuple):
    """METEOR of a corpus, or why there is none.

    Example:
        >>> MeteorScore(None, "java is not installed").score is None
        True
    """

    score: float | None
    """From 0 to 1."""
    reason: str | None
    """A sentence if there is no score."""


def corpus_meteor(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> MeteorScore:
    """Return METEOR 1.5 of a corpus, computed by the Java program in the package pycocoevalcap.

    Denkowski & Lavie, "Meteor universal: language specific translation evaluation for any target language", 2014, with
    the options of the evaluation of COCO captions: English, and the program's own normalization. Without the package,
    without Java or if the program fails, the score is None, and there is a reason.

    Args:
        candidates: words of one caption per image.
        references: words of one or more captions per image.

    Raises:
        TypeError: a caption is text instead of tokens.
        ValueError: candidates and references differ in number, or an image has no reference.

    Example:
        >>> score, reason = corpus_meteor([["a", "dog"]], [[["a", "dog"], ["the", "dog", "runs"]]])
        >>> (score is None) == (reason is not None)
        True
    """
    check_candidates(candidates, references)
    spec = importlib.util.find_spec("pycocoevalcap")
    places = [Path(place, JAR) for place in (spec and spec.submodule_search_locations) or ()]
    jar = next((path for path in places if path.is_file()), None)
    if jar is None:
        return MeteorScore(None, "METEOR needs the package pycocoevalcap: pip install 'reinforce-zoo[captions-eval]'")
    java = shutil.which("java")
    if java is None:
        return MeteorScore(None, "METEOR needs Java, and there is no program java; install one, version 8 or later")
    command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as errors:
        try:
            return MeteorScore(_run(command, errors, candidates, references), None)
        except (OSError, ValueError) as error:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").split("\n")
            said = next((line.strip() for line in lines if line.strip()), str(error))
            return MeteorScore(None, f"METEOR's Java program failed ({said}); check that {java} can run {jar}")


def _run(
    command: list[str],
    errors: IO[bytes],
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
) -> float:
    """Return the score, in a dialog line by line; the program has ended afterwards, whatever happens."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
    ) as process:
        try:
            statistics = []
            for candidate, captions in zip(candidates, references, strict=True):
                texts = [" ".join(caption).replace("|||", " ") for caption in (*captions, candidate)]
                statistics.append(_ask(process, " ||| ".join(["SCORE", *texts])))
            score = float(_ask(process, " ||| ".join(["EVAL", *statistics])))
            for _ in candidates:  # after the score of each caption follows that of the corpus
                score = float(_read(process))
            return score
        finally:
            process.kill()


def _ask(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return _read(process)


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise ValueError("it ended without an answer")
    return line
