"""Train a model of the zoo: ``python scripts/train.py model=ram``; without arguments, list the models."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from zoo.command_line import check_choices, errors_as_sentences, help_text, not_left_empty, relative
from zoo.composition import kept_config, plain, refuse_unused_estimator, register, with_available_data
from zoo.runs import train
from zoo.training import Interrupted


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def run(config: DictConfig) -> None:
    """Train one configuration in its own folder."""
    choices, overrides = HydraConfig.get().runtime.choices, list(HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with errors_as_sentences(), not_left_empty(folder):
        refuse_unused_estimator(config, overrides)
        settings = kept_config(folder) if config.resume else with_available_data(config, choices, overrides)
        try:
            outcome = train(plain(settings), folder, f"python scripts/train.py {' '.join(overrides)}")
        except Interrupted as stop:
            print(f"\n{stop}. Go on with:  python scripts/train.py resume={relative(folder)}")
            sys.exit(130)
        if outcome.summary:
            print(f"\n{outcome.summary}")
            left = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
            print(f"everything is in {relative(folder)}/: {left}")
            print(f"look closer:  python scripts/evaluate.py checkpoint={relative(outcome.checkpoint)}")


if __name__ == "__main__":
    if len(sys.argv) == 1 or {"-h", "--help"} & set(sys.argv):
        print(help_text())
    else:
        register()
        with errors_as_sentences():
            check_choices(sys.argv[1:])
        run()
