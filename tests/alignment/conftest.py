"""Tiny models and batches for holding losses against other libraries' own."""

from __future__ import annotations

import torch

from llm.types import IGNORE, Batch

VOCAB_SIZE = 50


def preference_batch(n_pairs: int = 3, seq_len: int = 11) -> Batch:
    """Chosen rows first, prompts of several lengths, completions that end early."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, VOCAB_SIZE, (2 * n_pairs, seq_len + 1), generator=generator)
    targets = ids[:, 1:].clone()
    for row in range(2 * n_pairs):
        targets[row, : 3 + row % n_pairs] = IGNORE  # the prompt, as long for both of a pair
        targets[row, seq_len - row % 4 :] = IGNORE  # what follows a short completion
    return Batch(tokens=ids[:, :-1], targets=targets)


def whole_ids(batch: Batch) -> torch.Tensor:
    """The T + 1 ids the batch was cut from; where nothing is a target the last id does not matter."""
    assert batch.targets is not None
    last = batch.targets[:, -1:].clamp(min=0)
    return torch.cat([batch.tokens, last], dim=1)


def completion_mask(batch: Batch) -> torch.Tensor:
    """True at the ids that are some place's target."""
    assert batch.targets is not None
    first = torch.zeros(len(batch.targets), 1, dtype=torch.bool)
    return torch.cat([first, batch.targets != IGNORE], dim=1)
