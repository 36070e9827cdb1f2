import os
import sys

import pytest

from zoo.attention.captioning import corpus_meteor

CANDIDATES = [["a", "dog", "runs"], ["two", "cats"], []]
REFERENCES = [[["a", "dog", "runs"], ["the", "dog"]], [["two", "cats", "sleep"]], [["a", "bird"]]]
# Answers in the place of METEOR: the number of words of the candidate as its statistics, and as its score a tenth.
ANSWERS = """
import sys
for line in sys.stdin:
    kind, *parts = line.rstrip("\\n").split(" ||| ")
    if kind == "SCORE":
        print(len(parts[-1].split()), flush=True)
    else:
        for part in parts:
            print(int(part) / 10)
        print(sum(map(int, parts)) / 10, flush=True)
"""


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Replaces pycocoevalcap and Java: the program that a test writes answers instead."""
    package = tmp_path / "site" / "pycocoevalcap"
    (package / "meteor").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "meteor" / "meteor-1.5.jar").touch()
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    pids = tmp_path / "pids"

    def write(code):
        record = f"import os\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        (tmp_path / "java").write_text(f"#!{sys.executable}\n{record}{code}")
        (tmp_path / "java").chmod(0o755)

    yield write
    for pid in pids.read_text().split() if pids.exists() else ():
        with pytest.raises(ProcessLookupError):  # neither running nor a zombie
            os.kill(int(pid), 0)


def test_score_is_the_last_of_the_answers(java):
    java(ANSWERS)
    assert corpus_meteor(CANDIDATES, REFERENCES) == (pytest.approx(0.5), None)


def test_captions_are_sent_after_their_references(java):
    java(ANSWERS.replace("len(parts[-1].split())", "10 * (parts == ['a dog runs', 'the dog', 'a dog runs'])"))
    assert corpus_meteor(CANDIDATES[:1], REFERENCES[:1]).score == 1.0


def test_separator_within_a_caption_does_not_split_it(java):
    java(ANSWERS.replace("len(parts[-1].split())", "len(parts)"))
    assert corpus_meteor([["a", "|||", "b"]], [[["c|||d"]]]).score == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('Error: Unable to access jarfile')", "Error: Unable to access jarfile"),
        (ANSWERS.replace("int(part) / 10", "'x'"), "could not convert string"),
        ("input()", "it ended without an answer"),
        (ANSWERS.replace("int(part) / 10", "''"), "it ended without an answer"),
        (ANSWERS + "sys.exit(3)", None),
        ("import sys\ninput()\nsys.stdout.buffer.write(b'\\xff\\n')", "utf-8"),
    ],
)
def test_failure_of_java_is_one_sentence_and_leaves_no_process(java, code, said):
    java(code)
    score, reason = corpus_meteor(CANDIDATES, REFERENCES)
    if said is None:
        assert score == pytest.approx(0.5)
    else:
        assert score is None
        assert reason.startswith("METEOR's Java program failed (")
        assert said in reason
        assert "\n" not in reason


def test_program_that_cannot_be_executed_is_a_reason(java, tmp_path):
    java("")
    (tmp_path / "java").write_text("#!/no/such/interpreter\n")
    assert "METEOR's Java program failed (" in corpus_meteor(CANDIDATES, REFERENCES).reason


def test_absence_of_java_is_a_reason(java):
    score, reason = corpus_meteor(CANDIDATES, REFERENCES)
    assert score is None
    assert reason == "METEOR needs Java, and there is no program java; install one, version 8 or later"


def test_absence_of_the_package_is_a_reason(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    score, reason = corpus_meteor(CANDIDATES, REFERENCES)
    assert score is None
    assert reason == "METEOR needs the package pycocoevalcap: pip install 'reinforce-zoo[captions-eval]'"


def test_wrong_numbers_of_captions_are_refused():
    with pytest.raises(ValueError, match="1 candidates, but references of 3 images"):
        corpus_meteor(CANDIDATES[:1], REFERENCES)
    with pytest.raises(TypeError, match="got the text 'a dog'"):
        corpus_meteor(["a dog"], [[["a", "dog"]]])
