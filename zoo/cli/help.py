"""Help texts of ``zoo train``."""

from collections.abc import Sequence

from zoo.cli.config_groups import options, summary
from zoo.cli.invocation import command_name
from zoo.cli.options import option_lines


def list_choices(group: str, prefix: str) -> str:
    """List the choices of a group, a line each, with their summaries in a column."""
    names = options(group)
    width = max(map(len, names))
    return "\n".join(f"  {prefix}{name:<{width}}  {summary(group, name)}" for name in names)


def options_help(choices: Sequence[str]) -> str:
    """List all options of a run, for ``--help`` beside choices such as ``model=ram``."""
    from zoo.cli.composition import compose_options, register  # late, for it takes long

    register()
    known = compose_options(tuple(choices))
    what = " ".join(choices)
    return f"""{option_lines(known.values())}

All options of {command_name("train")} {what}, each with its default, what it may be, and what it means.
"""


def help_text() -> str:
    """List the models, and what can be set, for ``--help`` and for a command without arguments."""
    models, experiments = list_choices("model", "model="), list_choices("experiment", "")
    command = command_name("train")
    return f"""Train a model of the zoo: {command} model=NAME [key=value ...]

Models
{models}

Experiments (experiment=NAME, complete by themselves)
{experiments}

Often changed
  data={"|".join(options("data"))}    data.root=DIR for idx and image_folder
  env=Acrobot-v1  any environment of Gymnasium, or MODULE:ID of your own; its options are env_kwargs.NAME=VALUE
  estimator={"|".join(options("estimator"))}
  logger={"|".join(options("logger"))}
  model.lr=0.001  trainer.max_epochs=20  seed=2  -m seed=1,2,3 (one run each)
  resume=RUN      continue a stopped run, exactly where it was saved; longer with trainer.max_epochs=N
  init_from=RUN/checkpoints/last.ckpt    begin with the weights of another run
  trust=true      run code of your own that a program names; given each time, kept nowhere

All options of a model, and what they mean: {command} model=NAME --help
"""
