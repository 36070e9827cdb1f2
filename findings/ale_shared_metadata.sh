#!/usr/bin/env bash
# Making one of Atari's vector environments changes what all other vector environments say of how they reset.
#
# Guess before the run: each environment's metadata["autoreset_mode"] is that environment's own.
#
# Exits 0 while the behavior is as seen in ale-py 0.12.1 on gymnasium 1.4.0, 1 if it changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q ale-py==0.12.1 gymnasium==1.4.0 numpy==2.2.6
"$place/venv/bin/python" 2>/dev/null <<'PYTHON'
import importlib.metadata
import sys

import ale_py
import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

print("ale-py", importlib.metadata.version("ale-py"), "on gymnasium", importlib.metadata.version("gymnasium"))
before = VectorEnv.metadata.get("autoreset_mode")
one = gymnasium.make_vec("ALE/Pong-v5", num_envs=1, autoreset_mode=AutoresetMode.SAME_STEP)
print("first environment, made to reset in the same step, says:", one.metadata["autoreset_mode"])
other = gymnasium.make_vec("ALE/Pong-v5", num_envs=1, autoreset_mode=AutoresetMode.NEXT_STEP)
print("after a second one was made that resets in the next step, the first says:", one.metadata["autoreset_mode"])
print("its own attribute still says:", one.autoreset_mode)
print("gymnasium.vector.VectorEnv.metadata said", before, "before, and now:", VectorEnv.metadata.get("autoreset_mode"))
changed = one.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP and one.autoreset_mode is AutoresetMode.SAME_STEP
print("The mode is written into a dictionary that the base class and every subclass without metadata of its own share.")
sys.exit(0 if changed and before is None else 1)
PYTHON
