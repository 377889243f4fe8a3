"""Supervised fine-tuning: next-token prediction on what the assistant wrote."""

from __future__ import annotations

from llm.training.losses import NextToken


class SFT(NextToken):
    """Cross-entropy over the assistant's tokens only, its closing marker included.

    The loss of pretraining on other data (Ouyang et al. 2022, section 3.5): conversations come with
    `IGNORE` as the target of everything the assistant did not write. The mean is over target tokens, not
    over conversations, so a long answer weighs as much as its tokens do.
    """
