"""Train for a few steps in every environment that Gymnasium, MinAtar, ale-py and other packages register.

    python benchmarks/environments.py                                # writes docs/environments.md
    python benchmarks/environments.py packages=minigrid,highway_env  # of other packages, by the module to import

An environment either trains or is rejected with an error message of one sentence; a traceback is a bug. Packages run in
separate processes, as some exit the process that imports them.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TIMEOUT = 3600  # seconds, for the environments of one part
OPTIONS = [
    *("trainer.max_epochs=1", "model.num_envs=2", "model.n_eval_episodes=2", "model.eval_freq=32"),
    *("model.total_timesteps=2000", "model.hidden=[8]", "model.n_steps=4"),
]
MAX_STEPS = 8
FAMILIES = {"ale_py": "Atari", "minatar": "MinAtar", "gymnasium": "Gymnasium"}


class Result(NamedTuple):
    """Outcome of training in an environment."""

    name: str
    family: str
    outcome: str
    """``trains``, ``refused`` or ``traceback``."""
    sentence: str


def family(name: str, entry_point: object) -> str:
    """Return the package of an environment."""
    module = entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", "?")
    parts = str(module).replace(":", ".").split(".")
    return ".".join(parts[:3]) if parts[0] == "gymnasium" else parts[0]


def try_one(name: str) -> tuple[str, str]:
    """Train a policy for a few steps in an environment; return outcome and error message."""

    from zoo.cli._commands import train
    from zoo.cli._composition import compose_config
    from zoo.cli._errors import error_message

    overrides = [
        "model=policy_gradient",
        f"env='{name}'",
        f"++env_kwargs.max_episode_steps={MAX_STEPS}",
        *OPTIONS,
    ]
    config = compose_config(overrides)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            train(config, Path(folder), "command")
        except Exception as error:
            sentence = error_message(error)
            outcome = "traceback" if sentence is None else "refused"
            return outcome, " ".join((sentence or f"{type(error).__name__}: {error}").split())
    return "trains", ""


def try_part(module: str, part: int, parts: int) -> None:
    """Print one line of JSON for each environment of a part of those that a module registers."""
    import gymnasium

    import zoo.control._experiment
    from zoo.control.envs._registration import import_env_module, register_games

    zoo.control._experiment.draw_returns = lambda *arguments: None  # takes longer than all else
    if module == "gymnasium":
        known = dict(gymnasium.registry)
    elif module in FAMILIES:
        before = set(gymnasium.registry)
        register_games({"ale_py": "ALE", "minatar": "MinAtar"}[module])
        known = {name: spec for name, spec in gymnasium.registry.items() if name not in before}
    else:
        before = set(gymnasium.registry)
        import_env_module(f"{module}:", trust=True)
        if not set(gymnasium.registry) - before:
            imported = sys.modules[module]
            for register_all in ("register_envs", "register_robotics_envs", "register_highway_envs"):
                getattr(imported, register_all, lambda: None)()
        known = {name: spec for name, spec in gymnasium.registry.items() if name not in before}
    for name in list(known)[part::parts]:
        outcome, sentence = try_one(name)
        kind = family(name, known[name].entry_point) if module == "gymnasium" else module
        print("RESULT " + json.dumps([name, kind, outcome, sentence]), flush=True)


def results_of(module: str, parts: int = 1) -> list[Result]:
    """Train in all environments of a module, with one process per part and one thread per core."""

    def results_of_part(part: int) -> list[Result]:
        command = [sys.executable, __file__, "--part", module, str(part), str(parts)]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            try:
                ended = subprocess.run(command, stdout=out, stderr=errors, timeout=TIMEOUT, cwd=ROOT, check=False)
                code: int | None = ended.returncode
            except subprocess.TimeoutExpired:
                code = None
            out.seek(0)
            errors.seek(0)
            lines = [line.removeprefix("RESULT ") for line in out if line.startswith("RESULT ")]
            found = [Result(*json.loads(line)) for line in lines]
            last = errors.read().strip().splitlines()[-1:] or ["nothing was printed"]
        if code != 0:
            what = f"it took longer than {TIMEOUT} seconds" if code is None else f"the process ended: {last[0]}"
            found.append(Result(f"after {len(lines)} environments", module, "traceback", what))
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [result for found in pool.map(results_of_part, range(parts)) for result in found]


def grouped(sentence: str) -> str:
    """Replace the parts of a message that differ between environments, so that equal ones are one line of the table."""
    sentence = re.sub(r"\b(environment|of|env=)\s*[\w/.-]+-v\d+", r"\1 …", sentence)
    sentence = re.sub(r"^[\w/.-]+-v\d+ ", "… ", sentence)
    sentence = re.sub(r"the reward .*?, which must be", "the reward [...], which must be", sentence)
    return sentence if len(sentence) <= 300 else sentence[:297] + "..."


def table(results: list[Result], versions: dict[str, str]) -> str:
    """Return the tables of the page as Markdown."""
    lines = [
        "| package | version | environments | train | rejected | traceback |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in dict.fromkeys(result.family for result in results):
        counts = Counter(result.outcome for result in results if result.family == kind)
        version = versions.get(kind.partition(".")[0], "")
        row = (kind, version, sum(counts.values()), counts["trains"], counts["refused"], counts["traceback"])
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += ["", "## Rejected", "", "| package | environments | error message |", "| --- | --- | --- |"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.outcome != "trains":
            reasons.setdefault((result.family, grouped(result.sentence)), []).append(result.name)
    for (kind, sentence), names in reasons.items():
        some = ", ".join(f"`{name}`" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"| {kind} | {some} | {sentence.replace('|', '/')} |")
    lines += ["", "## Trained", ""]
    for kind in dict.fromkeys(result.family for result in results):
        names = [f"`{result.name}`" for result in results if result.family == kind and result.outcome == "trains"]
        if names:
            lines += [f"{kind}: {', '.join(names)}.", ""]
    return "\n".join(lines)


INTRODUCTION = """# Environments

Result of `python scripts/train.py model=policy_gradient env=...` in every environment that Gymnasium, MinAtar and
ale-py register, and in those of other packages (`env=module:Name-v0 trust=true`): a few rollouts, updates and one
evaluation each, with episodes truncated after {steps} steps. It shows that an environment trains, not that its task is
learned. Made by `python benchmarks/environments.py`.

Observations may be arrays, numbers, bits, and dictionaries and tuples of these, which are flattened as by
`gymnasium.spaces.utils.flatten`. Actions may be `Discrete`, `MultiDiscrete`, `MultiBinary`, or a `Box` of floats or
integers of any shape. Text, graphs and sequences have no fixed size: wrap the environment to return arrays of a fixed
shape, register the wrapped one in your own module, and pass `env=module:Name-v0 trust=true`. A reward must be one
number: wrap an environment with several objectives to return their weighted sum.

"""


def main() -> None:
    """Train in all environments, and write the page."""
    packages = next((a.removeprefix("packages=").split(",") for a in sys.argv[1:] if a.startswith("packages=")), [])
    results = []
    for module, parts in [("gymnasium", 1), ("minatar", 1), ("ale_py", 8), *((package, 4) for package in packages)]:
        results += results_of(module, parts)
        print(module, Counter(result.outcome for result in results), flush=True)
    names = importlib.metadata.packages_distributions()
    modules = {result.family.partition(".")[0] for result in results}
    versions = {module: importlib.metadata.version(names[module][0]) for module in modules if module in names}
    page = INTRODUCTION.format(steps=MAX_STEPS) + table(results, versions)
    (ROOT / "docs" / "environments.md").write_text(page.rstrip() + "\n")
    sys.exit(any(result.outcome == "traceback" for result in results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        try_part(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
