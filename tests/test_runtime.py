"""Seeds and determinism, without what nobody has asked for yet."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY

SCRIPT = """
import os, sys, torch
from llm.runtime import seed_everything
seed_everything(3)
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
assert not {"torch._inductor", "torch._dynamo"} & set(sys.modules), "two seconds of every start"
import torch._inductor.config
assert torch._inductor.config.deterministic
"""


def test_determinism_without_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
