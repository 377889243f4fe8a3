"""What a training algorithm is, and what those that learn from a fixed data set share.

An algorithm (`llm.types.Algorithm`) says what one training step minimises. The trainer, the parallelism and
the checkpoints are the same for all; a config chooses one with ``alignment=NAME``::

    setup(policy)            once, with the initial policy, before training and before a resumed run's
                             weights are loaded: what is frozen here (DPO's reference) is the start
    collect(policy, batch)   on-policy algorithms generate here; the same batch otherwise
    units(batch)             what the loss is a mean over: target tokens, pairs
    loss(policy, batch)      that mean, with its graph, and metrics to log (detached)

The trainer weights the losses of micro-batches and ranks by their `units`, so that splitting a batch in any
way gives the same step. A new alignment algorithm is one file in ``llm/alignment`` with such a class and one
``conf/alignment/NAME.yaml``; the contract tests find it there.
"""

from __future__ import annotations

from torch import nn

from llm.types import Batch


class Offline:
    """The parts of `llm.types.Algorithm` that are the same for every fixed data set."""

    epochs_per_collect: int = 1

    def setup(self, policy: nn.Module) -> None:
        """Nothing to prepare."""

    def collect(self, policy: nn.Module, batch: Batch) -> Batch:  # noqa: ARG002  (`Algorithm`'s form)
        """The batch as it is: the data were collected before."""
        return batch
