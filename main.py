"""The one entry point: composes a config, checks it, runs the task it names. See `python main.py --help`."""

import gc
import sys

gc.disable()  # composing makes many small objects and no garbage; the launcher turns it on again

from llm.config import cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(cli("llm.tasks.launch:launch"))
