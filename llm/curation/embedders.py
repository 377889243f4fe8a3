"""Documents as vectors, to be compared by direction: hashed n-grams, or a transformer from a local folder."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from llm.curation.hashing import normal_forms
from llm.files import digest, sha256_file
from llm.types import ConfigError

Vectors = NDArray[np.float32]
"""One row a text."""

_ODD = np.uint64(0x9E3779B97F4A7C15)


class HashedGrams:
    """Counts of byte n-grams, hashed with signs into a few numbers (Weinberger et al. 2009, feature hashing).

    It needs no model, works for any script, and is lexical: it knows texts that share wording, such as edited
    copies, and nothing of what words mean. Use a `Transformer` for paraphrases. Counts are damped
    (1 + log), case, punctuation and spacing do not count (see `normal_forms`).

    Args:
        n_dims: Numbers in a vector; unrelated texts then differ from a right angle by about 1 / sqrt(n_dims).
        n_bytes: Length of a gram in UTF-8: 8 are a word and a half of English, 2 or 3 Chinese characters.
    """

    def __init__(
        self, n_dims: Annotated[int, Field(ge=8)] = 512, n_bytes: Annotated[int, Field(ge=1, le=8)] = 8
    ) -> None:
        self.n_dims, self.n_bytes = n_dims, n_bytes

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of no fixed length; zeros for an empty text."""
        vectors = np.zeros((len(texts), self.n_dims), np.float32)
        for number, form in enumerate(normal_forms(pl.Series(texts, dtype=pl.String))):
            # a form shorter than a gram is one gram; eight bytes are one integer
            n_grams = max(1, len(form) - self.n_bytes + 1) if form else 0
            data = np.frombuffer(form.ljust(self.n_bytes, b" "), np.uint8)
            grams = np.zeros(n_grams, np.uint64)
            for shift in range(self.n_bytes):
                grams = grams << np.uint64(8) | data[shift : shift + n_grams]
            unique, counts = np.unique(grams, return_counts=True)
            unique = unique * _ODD
            unique = (unique ^ unique >> np.uint64(32)) * _ODD  # the upper bits are the well-mixed ones
            bucket = (unique >> np.uint64(33)) % np.uint64(self.n_dims)
            sign = np.where(unique >> np.uint64(32) & np.uint64(1), 1.0, -1.0)
            weights = sign * np.rint(1024 * (1 + np.log(counts)))  # whole numbers: the same on any machine
            vectors[number] = np.bincount(bucket.astype(np.int64), weights, minlength=self.n_dims)
        return vectors


class Transformer:
    """The mean of a transformer's last hidden states over the tokens of a text, as sentence encoders do it.

    Args:
        path: A folder with a model and a tokenizer as `transformers` saves them, e.g. all-MiniLM-L6-v2.
        max_tokens: The beginning of a text that is read.
        batch_size: Texts in one forward pass.
        device: torch's name of where it runs.

    Raises:
        ConfigError: no such folder, no model in it, or `transformers` is not installed.
    """

    def __init__(
        self,
        path: str,
        max_tokens: Annotated[int, Field(gt=0)] = 256,
        batch_size: Annotated[int, Field(gt=0)] = 32,
        device: str = "cpu",
    ) -> None:
        self.path, self.max_tokens, self.batch_size, self.device = path, max_tokens, batch_size, device
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # each process loads it when it needs it

    def prepare(self, say: object) -> None:  # noqa: ARG002  (nothing to tell)
        """Loads the model, so that what is wrong with it is told before the corpus is read."""
        self._load()

    def fingerprint(self) -> str:
        """A digest of the files in the folder, which changes with the weights."""
        found = sorted(one for one in Path(self.path).glob("[!.]*") if one.is_file())
        states = [(one, one.stat()) for one in found]
        return digest([[one.name, _sha256(one, now.st_size, now.st_mtime_ns)] for one, now in states])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors as wide as the model; a text's own, whatever else is in its batch, up to rounding."""
        import torch

        tokenizer, model = self._load()
        # texts of a length together, so that few tokens are padding
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            batch = tokenizer(
                [texts[i] for i in part],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors[part] = mean.float().cpu().numpy()
        return vectors

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            if not Path(self.path).is_dir():
                raise ConfigError("path", self.path, "no such folder; give one with a model in it")
            try:
                transformers = importlib.import_module("transformers")
            except ImportError as error:
                mend = "needs the package transformers: pip install -e '.[hf]'"
                raise ConfigError("path", self.path, mend) from error
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, local_files_only=True)
                model = transformers.AutoModel.from_pretrained(self.path, local_files_only=True)
            except (OSError, ValueError) as error:
                first = str(error).partition("\n")[0]
                raise ConfigError("path", self.path, f"cannot be loaded as a transformer: {first}") from error
            self._loaded = tokenizer, model.eval().to(self.device)
        return self._loaded


@functools.lru_cache
def _sha256(path: Path, _size: int, _changed: int) -> str:
    """Of a file in this state: gigabytes of weights are not read again each time a start asks."""
    return sha256_file(path)
