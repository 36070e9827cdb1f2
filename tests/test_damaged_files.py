"""Files that a run reads, damaged in every way we could think of: each is read, or refused in one sentence."""

import copy
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from zoo.cli._composition import load_run_config
from zoo.training import read_checkpoint, read_metrics
from zoo.training._record import RunRecord

pytestmark = pytest.mark.usefixtures("no_pictures")

IN_PLACE = (None, True, -1, 10**30, 0.5, math.nan, "", "text", [], [None], {}, {"text": 1})
BYTES = (
    b"\0",
    b"\xff",
    b"\n",
    b'"',
    b"{",
    b"9",
    b"x",
    b"-",
    b"\x80",
    b"\t",
    b",",
    b":",
    b"PK",
    b"\xc3\xa9",
    b"\x1b[31m",
)
HASH = "another configuration"  # what is said of one that was changed, and of a changed fingerprint
SAMPLE = 25  # damages of each kind of file in the default run


class Damage(NamedTuple):
    """One way to damage a file, and what makes the damaged content."""

    how: str
    content: Callable[[], bytes]


def damaged_bytes(content: bytes, generator: random.Random, places: int) -> Iterator[Damage]:
    """Cut off, emptied, of another kind, or with bytes of each class in the place of others or between them."""
    whole = {f"the first {kept} bytes": content[:kept] for kept in (0, 1, 2, len(content) // 2, len(content) - 1)}
    whole |= {"the second half": content[len(content) // 2 :], "twice": content + content}
    whole |= {"zeros": bytes(len(content)), "noise": generator.randbytes(len(content))}
    whole |= {
        "a picture": b"\x89PNG\r\n\x1a\n" + generator.randbytes(100),
        "a mark of byte order": b"\xff\xfe" + content,
    }
    whole |= {"nested too deeply": b"[" * 20_000}
    for how, changed in whole.items():
        yield Damage(how, partial(bytes, changed))
    for _ in range(places):
        at, put, length = generator.randrange(len(content)), generator.choice(BYTES), generator.randrange(1, 600)
        yield Damage(f"{put!r} in the place of byte {at}", partial(spliced, content, at, put, len(put)))
        yield Damage(f"{put!r} before byte {at}", partial(spliced, content, at, put, 0))
        yield Damage(f"without byte {at}", partial(spliced, content, at, b"", 1))
        yield Damage(f"{length} zeros from byte {at}", partial(spliced, content, at, bytes(length), length))


def spliced(content: bytes, at: int, put: bytes, without: int) -> bytes:
    """The same with other bytes at a place."""
    return content[:at] + put + content[at + without :]


def places_of(content: Any, place: tuple = ()) -> Iterator[tuple]:
    """All parts of a nest of mappings and sequences, by the keys that lead there."""
    keys = (
        content
        if isinstance(content, dict)
        else range(min(len(content), 3))
        if isinstance(content, list | tuple)
        else ()
    )
    for key in keys:
        yield (*place, key)
        yield from places_of(content[key], (*place, key))


def without(content: Any, place: tuple) -> Any:
    """The same without a part."""
    changed = copy.deepcopy(content)
    holder = holder_of(changed, place)
    if isinstance(holder, tuple):
        return replaced(content, place[:-1], holder[: place[-1]] + holder[place[-1] + 1 :])
    del holder[place[-1]]
    return changed


def replaced(content: Any, place: tuple, value: Any) -> Any:
    """The same with something else in the place of a part."""
    changed = copy.deepcopy(content)
    holder = holder_of(changed, place)
    if isinstance(holder, tuple):
        return replaced(content, place[:-1], (*holder[: place[-1]], value, *holder[place[-1] + 1 :]))
    holder[place[-1]] = value
    return changed


def holder_of(content: Any, place: tuple) -> Any:
    for key in place[:-1]:
        content = content[key]
    return content


def damaged_parts(
    content: Any, written: Callable[[Any], bytes], in_place: Sequence[Any] = IN_PLACE
) -> Iterator[Damage]:
    """Without each part, and with something of each other kind in its place."""
    for place in places_of(content):
        name = ".".join(map(str, place))
        yield Damage(f"without {name}", lambda place=place: written(without(content, place)))
        for value in in_place:
            how = f"{value!r} in the place of {name}"
            yield Damage(how, lambda place=place, value=value: written(replaced(content, place, value)))
    for value in in_place:
        yield Damage(f"{value!r} alone", partial(written, value))


def as_json(content) -> bytes:
    return json.dumps(content).encode()


def as_yaml(content) -> bytes:
    return yaml.safe_dump(content).encode()


def as_table(content) -> bytes:
    rows = content if isinstance(content, list) else [content]
    return "\n".join(",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows).encode()


def as_checkpoint(content) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def damages(name: str, run: Path) -> list[Damage]:
    """All damages of a file of a run."""
    content = (run / name).read_bytes()
    found = list(damaged_bytes(content, random.Random(name), places=40))
    if name == "status.json":
        return found + list(damaged_parts(json.loads(content), as_json))
    if name == "config.yaml":
        return found + list(damaged_parts(yaml.safe_load(content), as_yaml))
    if name == "metrics.csv":
        return found + list(damaged_parts([line.split(",") for line in content.decode().splitlines()], as_table))
    parts = torch.load(run / name, weights_only=True)
    return found + list(damaged_parts(parts, as_checkpoint, in_place=(None, "text", [1.0])))


FILES = ("config.yaml", "status.json", "metrics.csv", "checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A finished run, with files that a test may damage."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    return shutil.copytree(finished("q_learning"), folder)


def read_all(run: Path) -> None:
    """Read what ``resume=RUN`` reads, in its order, and what tables and figures are made of."""
    config = load_run_config(run)
    RunRecord(run, config, "command")
    read_checkpoint(run / "checkpoints" / "last.ckpt", "QLearning", resumable=True)
    read_metrics(run / "metrics.csv", "env_steps", "start_value")


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def complaints(run: Path, name: str, damage: Damage) -> list[str]:
    """What is wrong with how a damaged file is read."""
    whole = (run / name).read_bytes()
    (run / name).write_bytes(damage.content())
    before = contents(run)
    found = []
    try:
        read_all(run)
    except ValueError as error:
        said = str(error)
        if "\n" in said or not ({name, Path(name).name} & set(said.replace("/", " ").split()) or HASH in said):
            found.append(f"unclear: {error}")
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
    if contents(run) != before:
        found.append("a file has changed")
    (run / name).write_bytes(whole)
    return [f"{name}, {damage.how}: {each}" for each in found]


def check(run: Path, name: str, sample: int | None) -> tuple[int, list[str]]:
    """Try all damages of a file, or a sample of them; how many there were, and what is wrong with how they are read."""
    chosen = damages(name, run)
    if sample is not None:
        chosen = random.Random(name).sample(chosen, sample)
    return len(chosen), [found for damage in chosen for found in complaints(run, name, damage)]


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_refused_in_a_sentence_and_nothing_is_lost(name, run):
    assert check(run, name, SAMPLE)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_file_damaged_at_random_is_refused_in_a_sentence_and_nothing_is_lost(name, run):
    count, found = check(run, name, None)
    print(f"{name}: {count} damages")
    assert found == []
    assert count >= 250
