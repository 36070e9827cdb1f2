#!/usr/bin/env bash
# Guess, written down before running: a vector environment of the Arcade Learning Environment takes any seed that a
# single one takes, as other environments of Gymnasium do; a seed that is too large would be named in the error.
# Seen: gymnasium.make("ALE/Pong-v5") takes 2**31 and 2**32 - 1. gymnasium.make_vec of the same id raises a TypeError
# about incompatible function arguments, which says nothing of the seed, as soon as seed + num_envs - 1 is 2**31 or
# more. So code that draws its seeds from 32 bits fails in every second run, and in games alone.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ale-py==0.12.1 gymnasium==1.4.0 numpy==2.4.4

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import ale_py
import gymnasium

print("ale-py", version("ale-py"), "gymnasium", version("gymnasium"))
gymnasium.register_envs(ale_py)


def taken(environment, seed):
    try:
        environment.reset(seed=seed)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "taken"


single, several = gymnasium.make("ALE/Pong-v5"), gymnasium.make_vec("ALE/Pong-v5", num_envs=2)
other = gymnasium.make_vec("CartPole-v1", num_envs=2)
found = {}
for seed in (2**31 - 2, 2**31 - 1, 2**32 - 1):
    for what, environment in (("one game", single), ("two games", several), ("two cart poles", other)):
        found[what, seed] = taken(environment, seed)
        print(f"{what}, seed {seed}: {found[what, seed]}")

expected = (
    found["one game", 2**32 - 1] == found["two cart poles", 2**32 - 1] == found["two games", 2**31 - 2] == "taken"
    and found["two games", 2**31 - 1].startswith("TypeError: reset(): incompatible function arguments")
)
sys.exit(0 if expected else "the behavior has changed")
PYTHON
