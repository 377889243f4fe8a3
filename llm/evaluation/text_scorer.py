"""A trained model as a judge of text, for curation: how likely it finds each document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from llm.files import digest
from llm.types import Request, TextScore

if TYPE_CHECKING:
    from llm.evaluation.scorer import Scorer


class CheckpointScorer:
    """An `llm.types.TextScorer` with any model that can be loaded; torch is imported with the first text.

    Texts are scored one by one: in a batch with others, the last bits of a score would depend on its
    neighbours, and the same text in another shard might fall on the other side of a threshold.

    Args:
        checkpoint: A run's folder or one of its checkpoints; Hugging Face's form; a GGUF file.
        max_chars: How much of a text is read, from its beginning.
        device: Where the model works, as torch names it.
    """

    def __init__(
        self, checkpoint: str, max_chars: Annotated[int, Field(ge=1)] = 4000, device: str = "cpu"
    ) -> None:
        self.checkpoint, self.max_chars, self.device = str(checkpoint), max_chars, device
        self._scorer: Scorer | None = None
        self._fingerprint: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scorer": None}

    def prepare(self) -> None:
        """Finds the model and digests its files.

        Raises:
            ConfigError: there is none. Key `checkpoint`.
        """
        self.fingerprint()

    def fingerprint(self) -> str:
        """A digest of the weights and of how much is read."""
        if self._fingerprint is None:
            from llm.checkpoints.pretrained import Pretrained

            weights = Pretrained.chosen(self.checkpoint, None).fingerprint()
            self._fingerprint = digest([weights, self.max_chars])
        return self._fingerprint

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """Every token but one without anything before it; long texts in windows of the model's context."""
        scorer = self._load()
        found = []
        for text in texts:
            read = text[: self.max_chars]
            (answer,) = scorer.respond([Request("", read)])
            found.append(TextScore(-answer.log_likelihood, answer.n_tokens, len(read.encode())))
        return found

    def _load(self) -> Scorer:
        if self._scorer is None:
            import torch

            from llm.checkpoints.pretrained import load
            from llm.evaluation.scorer import Scorer

            model, tokenizer, _ = load(self.checkpoint)
            self._scorer = Scorer(model.to(torch.device(self.device)), tokenizer)
        return self._scorer
