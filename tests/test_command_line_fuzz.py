"""Thousands of command lines for ``scripts/train.py``, over all keys of all models: each runs as asked, or is refused.

A refusal is one sentence. What is accepted stands in the configuration exactly as it was asked for, and trains. The
default run draws a sample; ``-m slow`` has them all.
"""

import itertools
import math
import random
import signal
import warnings
from types import NoneType, UnionType
from typing import NamedTuple, Union, get_args, get_origin

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from zoo.cli._command_line import PATH_KEYS, parse_value, read_command_line
from zoo.cli._commands import check_logger, train
from zoo.cli._composition import check_estimator_is_used, check_settings, compose_options, register
from zoo.cli._config_groups import configs_dir, group_choices, groups
from zoo.cli._errors import error_message
from zoo.cli._schemas import MODELS
from zoo.gradients import BASELINES

SAMPLE = 40
SECONDS = 60  # that a command may take
NEVER = {  # values that mean nothing for a type
    int: ["-1", "1.5", "1e3", "nan", "banana", "true", "[1]", "{a: 1}", "9223372036854775808", "-1e99", "1" * 400],
    float: ["nan", "inf", "-inf", "1e400", "banana", "true", "[1.0]", "{a: 1}", "1" * 400, "-1.0"],
    bool: ["2", "1", "yes", "banana", "[true]", "{a: 1}", "-1", "null"],
    str: ["banana", "[a]", "{a: 1}", "9" * 30, "-", "a=b", "ü", "a b", "(", "0.0.0"],
    list[int]: ["3", "banana", "[-1]", "[0]", "[1.5]", "[null]", "[[1]]", "[true]", "[9223372036854775808]", "{a: 1}"],
    tuple[int, int]: ["3", "[1]", "[1,2,3]", "[0,0]", "[-1,2]", "banana", "[1.5,2]"],
}
MAYBE = {  # values that some options take
    int: ["0", "1", "2", "3", "7", "16"],
    float: ["0", "0.0", "1", "0.5", "1e-3", "1e-30", "1e10", "3.7e38"],
    bool: ["true", "false", "True"],
    str: ["none", "1", "auto", "cpu", "adam", "cosine", "squared", "0.5", "learned", "center", "32-true", "bf16-mixed"],
    list[int]: ["[]", "[1]", "[4,4]"],
    tuple[int, int]: ["[12,12]", "[1,1]"],
}
EVERYWHERE = [
    *("", "''", "???", "${nope}", "${oc.env:HOME}", "${seed}", "1,2"),
    *("'", '"', "]", "range(1,3)", "x(1)", "\\", "#"),
]
FREE = ("logger.project",)  # text of any kind
KEYS = [
    *("+{key}={value}", "++{key}={value}", "~{key}", "--{key}={value}", "--{key}", "{key}"),
    *("{key}.x={value}", "x.{key}={value}"),
]
GROUPS = ("model", "data", "estimator", "trainer", "logger", "experiment")
NAMES = ("", "RAM", "1", "[ram]", "{a: 1}", "../ram", "ram.yaml", "/", "*")
ACTING = ("policy_gradient", "q_learning", "dqn")  # in an environment, for as many steps where epochs are null:
BUDGET = "model.total_timesteps=500"
LINES = [
    *(f"{group}={name}" for group in GROUPS for name in NAMES),
    *(f"{group}=null" for group in GROUPS[:-1]),
    *(f"estimator={name}" for name in (*BASELINES, "constant", "optimal", "renforce", "nvil,vimco")),
    *("--model ram", "-model=ram", "model:ram", "model==ram", "=", "==", "=ram", "+", "~", "-", "--", "---", "-x"),
    *("--help=1", "hydra.run.foo=1", "hydra.verbose=true", "hydra.job.chdir=true", "hydra/launcher=joblib"),
    *("hydra=x", "+hydra.foo=1", "model@foo=ram", "schema=x", "schema/model=ram", "defaults=[]"),
    *("model._target_=os.system", "data._target_=os.mkdir", "estimator._target_=x", "trust=yes", "trust="),
    *("trust.x=1", "+trust=true", "extended={a: 1}", "resume=", "resume=none", "init_from=none", "seed.x=1"),
    *("seed[0]=1", "model.hidden[0]=3", "model.=1", ".seed=1", "a.b.c.d=1", "🙂=1", "seed =1"),
]


class Case(NamedTuple):
    """A command line, and what must become of it."""

    model: str
    arguments: tuple[str, ...]
    key: str = ""
    text: str = ""
    refused: bool = True


def nonsense(annotation, key, text):
    """Tell whether a value means nothing for an option of that type."""
    if text in EVERYWHERE:
        return key not in (*FREE, *PATH_KEYS) or text in ("", "''", "???") or "${" in text
    return key not in FREE and text in NEVER.get(annotation, [])


def cases():
    """Return every command line: values for all keys of all models, misspelt keys, and lines of other kinds."""
    register()
    for model in MODELS:
        known = compose_options((f"model={model}", *(["data=idx"] if model in ("ram", "sbn") else [])))
        for key, option in known.items():
            union = get_origin(option.annotation) in (Union, UnionType)
            kinds = get_args(option.annotation) if union else (option.annotation,)
            nullable = NoneType in kinds
            for part in [kind for kind in NEVER if kind in kinds]:
                for text in dict.fromkeys([*NEVER[part], *MAYBE[part], *EVERYWHERE]):
                    refused = nonsense(part, key, text) and not (nullable and text == "null")
                    yield Case(model, (f"{key}={text}",), key, text, refused)
            yield Case(model, (f"{key}=null",), key, "null", not nullable)
            group, _, name = key.rpartition(".")
            for wrong in sorted({name[1:], name[:-1], f"{name}s", name.upper(), name.replace("_", "-"), f"{name}_"}):
                whole = f"{group}.{wrong}" if group else wrong
                if wrong and whole not in known and whole not in groups():
                    yield Case(model, (f"{whole}=1",), "", wrong)
            for form in KEYS:
                yield Case(model, tuple(form.format(key=key, value=1).split(" ")))
            if group:
                yield Case(model, (f"{name}=1",)) if name not in ("seed", "env") else Case(model, (f"x{name}=1",))
        for line in LINES:
            yield Case(model, tuple(line.split(" ")))


class TakesTooLong(Exception):
    """Whatever it is, it is no answer."""


def stop(*_):
    raise TakesTooLong


def become(case, tiny, folder, trained):
    """Run a command line as ``scripts/train.py`` does, in this process, and return what is wrong with the outcome."""
    line = [*tiny(case.model), *([BUDGET] if case.model in ACTING else []), *case.arguments]
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = configured(line)
            check_logger(config["logger"]["name"])
            if trained:
                metrics = train(config, folder, "command").metrics
                if not all(math.isfinite(x) for x in metrics.values()):
                    return f"reached {metrics}"
    except TakesTooLong:
        return "takes too long"
    except SystemExit:
        return "ended without a sentence"
    except Exception as error:
        sentence = error_message(error)
        if sentence is None:
            return f"{type(error).__name__}: {error}"
        return None if sentence and "\n" not in sentence.strip() else f"no one sentence: {sentence!r}"
    finally:
        signal.alarm(0)
    if case.refused and trained:
        return "was accepted"
    got = OmegaConf.select(OmegaConf.create(config), case.key) if case.key else None
    asked = parse_value(case.text)
    if case.key and asked is not None and got != asked and got != case.text:
        return f"became {got!r}"
    return None


def configured(line):
    """Return the configuration of a command line, checked and composed."""
    request = read_command_line(line)
    check_settings(request)
    overrides = [override for override in request.arguments() if not override.startswith("-")]
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides)
    check_estimator_is_used(config, overrides)
    return OmegaConf.to_container(config, resolve=True)


def failures(chosen, tiny, tmp_path, trained):
    wrong = []
    for number, case in enumerate(chosen):
        if (what := become(case, tiny, tmp_path / str(number), trained)) is not None:
            wrong.append(f"model={case.model} {' '.join(case.arguments)!r}: {what}")
            print(wrong[-1], flush=True)
    return wrong


def test_there_are_thousands_of_command_lines():
    counted = sum(1 for _ in cases())
    assert counted >= 3000
    assert {option for group in groups() for option in group_choices(group)}


@pytest.mark.usefixtures("no_pictures")
def test_sampled_command_lines_are_refused_in_a_sentence_or_accepted_as_typed(tiny, tmp_path):
    chosen = random.Random(0).sample(list(cases()), SAMPLE)
    assert failures(chosen, tiny, tmp_path, trained=False) == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("part", range(20))
def test_every_command_line_is_refused_in_a_sentence_or_trains_as_typed(part, tiny, tmp_path):
    assert failures(itertools.islice(cases(), part, None, 20), tiny, tmp_path, trained=True) == []
