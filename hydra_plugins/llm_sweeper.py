"""Where Hydra looks for sweepers; the code is in `llm.sweeping`."""

from llm.sweeping.content import ContentSweeper

__all__ = ["ContentSweeper"]
