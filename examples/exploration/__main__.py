"""Compare explorations by their regret: ``python -m examples.exploration [env=FrozenLake-v1] [episodes=16000]``."""

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import gymnasium

from examples.exploration import SCHEDULES, learning_regret, regret_curves, summarize, write_csv
from zoo._constraints import COUNT, check_constraints
from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.control.envs import FiniteMDP, find_spec
from zoo.plotting import save_figure
from zoo.training import run_environment, write_json


@dataclass
class ExploreConfig:
    """Arguments of this program.

    Args:
        env: id of an environment that exposes its dynamics.
        episodes: number of episodes of each run.
        seeds: one run of each exploration per seed.
    """

    env: str = "FrozenLake-v1"
    episodes: int = 16_000
    seeds: list[int] = field(default_factory=lambda: list(range(1, 11)))


def main() -> None:
    """Train with each exploration and seed, plot the regret, and print a summary."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(ExploreConfig, str(__doc__)))
            return
        start, config = time.monotonic(), parse_arguments(ExploreConfig, sys.argv[1:])
        check_constraints({"episodes": config.episodes}, {"episodes": COUNT})
        if not config.seeds or min(config.seeds) < 0:
            raise ValueError("seeds must contain at least one seed, and none below 0: seeds=[1]")
        mdp = FiniteMDP.from_gymnasium(gymnasium.make(find_spec(config.env)), gamma=0.99)
        runs, summaries = {}, []
        for name in SCHEDULES:
            runs[name] = [learning_regret(mdp, name, config.episodes, seed) for seed in config.seeds]
            summaries.append(summarize(name, runs[name]))
            print(summaries[-1], flush=True)
        folder = Path("runs/regret")
        folder.mkdir(parents=True, exist_ok=True)
        curves = {
            name: [(run.episodes, run.cumulative, run.greedy_gap) for run in group] for name, group in runs.items()
        }
        save_figure(regret_curves(curves), folder / "regret.png")
        write_csv(folder / "regret.csv", config.seeds, runs)
        seconds = round(time.monotonic() - start, 1)
        record = {
            "command": " ".join(["python -m examples.exploration", *sys.argv[1:]]),
            **asdict(config),
            "wall_seconds": seconds,
            "summaries": summaries,
        }
        write_json(folder / "regret.json", record | run_environment())
        print(f"written to {folder}/: regret.csv, regret.json, regret.png")


if __name__ == "__main__":
    main()
