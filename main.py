"""The one entry point: composes a config, checks it, runs the task it names. See `python main.py --help`."""

import gc
import os
import sys

gc.disable()  # composing makes many small objects and no garbage; the launcher turns it on again
# A thread that waits for another one gives its core away soon: on two cores shared with other work, spinning
# as long as OpenMP does by default made a training step up to ten times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from llm.config import cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(cli("llm.tasks.launch:launch"))
