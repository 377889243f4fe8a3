"""fastText as a classifier that is trained here: bag of words and word pairs, one linear layer.

Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification".
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from llm import files
from llm.classifiers.lines import LABEL_PREFIX
from llm.types import ConfigError

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class FastText:
    """Settings of fastText's supervised training; one thread, so that the same lines give the same bytes.

    Args:
        dim: Numbers a word is represented by.
        epoch: Passes over the examples; some thousand examples want 10 and more, some hundred thousand 5.
        lr: Learning rate at the beginning; it falls to zero.
        word_ngrams: Longest run of words that has a vector of its own; DCLM uses 2 (Li et al. 2024, 4.4).
        min_count: Rarer words are left out.
        min_n: Shortest run of characters inside a word with a vector; 0 for none.
        max_n: Longest run; 0 for none.
        bucket: Vectors that runs of words and characters share. Size of the file: (words + bucket) x dim x 4
            bytes, hence not fastText's 2,000,000.
        quantise: Compresses the vectors (Joulin et al. 2016, "FastText.zip"); what is measured and kept is
            the compressed classifier.
    """

    dim: Annotated[int, Field(ge=1)] = 16
    epoch: Annotated[int, Field(ge=1)] = 5
    lr: Annotated[float, Field(gt=0)] = 0.5
    word_ngrams: Annotated[int, Field(ge=1)] = 2
    min_count: Annotated[int, Field(ge=1)] = 1
    min_n: Count = 0
    max_n: Count = 0
    bucket: Annotated[int, Field(ge=1)] = 100_000
    quantise: bool = False

    @staticmethod
    def check_arguments(min_n: int = 0, max_n: int = 0) -> None:
        """Runs of characters have a shortest and a longest length.

        Raises:
            ConfigError: the shortest is longer than the longest. Key `min_n`.
        """
        if min_n > max_n:
            raise ConfigError("min_n", min_n, f"is above max_n={max_n}")

    def __post_init__(self) -> None:
        self.check_arguments(self.min_n, self.max_n)

    def fit(
        self, lines: Sequence[str], labels: Sequence[int], directory: Path, seed: int
    ) -> tuple[Any, Path]:
        """The model and the file it is saved in, ``classifier.bin`` or ``classifier.ftz``."""
        import fasttext  # a compiled module that only classifiers need

        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "lines"
            with data.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(
                    f"{LABEL_PREFIX}{label} {line}\n" for label, line in zip(labels, lines, strict=True)
                )
            try:
                model = fasttext.train_supervised(
                    str(data), dim=self.dim, epoch=self.epoch, lr=self.lr, wordNgrams=self.word_ngrams,
                    minCount=self.min_count, minn=self.min_n, maxn=self.max_n, bucket=self.bucket,
                    loss="softmax", thread=1, seed=seed, verbose=0,
                )  # fmt: skip
            except RuntimeError as error:  # the loss is NaN
                raise ConfigError("lr", self.lr, f"training failed: {error}; lower it") from None
            if self.quantise:
                model.quantize(thread=1, verbose=0)
        path = directory / ("classifier.ftz" if self.quantise else "classifier.bin")
        with files.replacing(path) as temporary:
            model.save_model(str(temporary))
        return model, path
