"""Help texts of ``zoo train``."""

from collections.abc import Sequence

from zoo.cli._config_groups import group_choices, summary
from zoo.cli._invocation import command_name
from zoo.cli._options import option_lines


def list_choices(group: str, prefix: str) -> str:
    """Return a line for each choice of a group, with its summary."""
    names = group_choices(group)
    width = max(map(len, names))
    return "\n".join(f"  {prefix}{name:<{width}}  {summary(group, name)}" for name in names)


def options_help(choices: Sequence[str]) -> str:
    """Return the help text for all options of a run, given choices such as ``model=ram``."""
    from zoo.cli._composition import compose_options, register  # takes long

    register()
    known = compose_options(tuple(choices))
    what = " ".join(choices)
    return f"""{option_lines(known.values())}

All options of {command_name("train")} {what}, each with its default, type and description.
"""


def help_text() -> str:
    """Return the help text of ``zoo train``: models, experiments and common options."""
    models, experiments = list_choices("model", "model="), list_choices("experiment", "")
    command = command_name("train")
    return f"""Train a model of the zoo: {command} model=NAME [key=value ...]

Models
{models}

Experiments (experiment=NAME, complete by themselves)
{experiments}

Common options
  data={"|".join(group_choices("data"))}    data.root=DIR for flickr8k, idx, image_folder and karpathy
  env=Acrobot-v1  any environment of Gymnasium, or MODULE:ID of your own; its arguments are env_kwargs.NAME=VALUE
  estimator={"|".join(group_choices("estimator"))}  estimator.baseline=NAME, such as none or leave_one_out, or a number
  logger={"|".join(group_choices("logger"))}
  model.lr=0.001  trainer.max_epochs=20  seed=2  -m seed=1,2,3 (one run each)
  resume=RUN      resume a run exactly from its last checkpoint; trainer.max_epochs=N extends it
  init_from=RUN/checkpoints/last.ckpt    start from the weights of another run
  trust=true      allow code of your own, in a program or environment, to be run; never stored

All options of a model, with descriptions: {command} model=NAME --help
"""
