"""A model in use, not in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from llm.types import LanguageModel


@contextmanager
def evaluating(model: LanguageModel | nn.Module) -> Iterator[None]:
    """Without dropout and without gradients; then in the mode the model was in."""
    was_training = model.training
    if was_training:  # switching walks over all modules, which a caller may do for every token
        model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        if was_training:
            model.train(True)
