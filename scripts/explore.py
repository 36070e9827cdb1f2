"""Compare explorations by their regret: ``python scripts/explore.py [env=FrozenLake-v1] [episodes=16000]``."""

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import gymnasium

from zoo.cli.arguments import arguments_help, parse_arguments, wants_help
from zoo.cli.errors import user_errors
from zoo.constraints import COUNT, check_constraints
from zoo.control.envs import FiniteMDP, find_spec
from zoo.control.q_learning.regret import SCHEDULES, learning_regret, summarize, write_csv
from zoo.plotting import regret_curves, save_figure
from zoo.training import run_environment, write_json


@dataclass
class ExploreConfig:
    """Arguments of this script.

    Args:
        env: environment that exposes its dynamics, by its id in Gymnasium's registry.
        episodes: of each run.
        seeds: each explores once in each way.
    """

    env: str = "FrozenLake-v1"
    episodes: int = 16_000
    seeds: list[int] = field(default_factory=lambda: list(range(1, 11)))


def main() -> None:
    """Learn with each exploration and seed, draw the regret, and say what was found."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(ExploreConfig, str(__doc__)))
            return
        start, asked = time.monotonic(), parse_arguments(ExploreConfig, sys.argv[1:])
        check_constraints({"episodes": asked.episodes}, {"episodes": COUNT})
        if not asked.seeds or min(asked.seeds) < 0:
            raise ValueError("there must be at least one seed, and none below 0: seeds=[1]")
        mdp = FiniteMDP.from_gymnasium(gymnasium.make(find_spec(asked.env)), gamma=0.99)
        runs = {name: [learning_regret(mdp, name, asked.episodes, seed) for seed in asked.seeds] for name in SCHEDULES}
        folder = Path("runs/regret")
        folder.mkdir(parents=True, exist_ok=True)
        curves = {
            name: [(run.episodes, run.cumulative, run.greedy_gap) for run in seeds] for name, seeds in runs.items()
        }
        save_figure(regret_curves(curves), folder / "regret.png")
        write_csv(folder / "regret.csv", asked.seeds, runs)
        found = [summarize(name, seeds) for name, seeds in runs.items()]
        seconds = round(time.monotonic() - start, 1)
        record = {"command": " ".join(["python", *sys.argv]), **asdict(asked), "wall_seconds": seconds, "found": found}
        write_json(folder / "regret.json", record | run_environment())
        print("\n".join(found))
        print(f"all is in {folder}/: regret.csv, regret.json, regret.png")


if __name__ == "__main__":
    main()
