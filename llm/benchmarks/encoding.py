"""Encoding with our byte-level BPE against Hugging Face `tokenizers`, on Python's own standard library."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import tokenizers
from pydantic import Field

from llm.benchmarks.base import alternate
from llm.runs.run import Run
from llm.tokenizers.base import VOCABULARY_FILE, encode_batch
from llm.types import ConfigError, Tokenizer

Count = Annotated[int, Field(gt=0)]

BATCH_CHARACTERS = 1 << 21
"""Texts that are encoded at a time, as when a corpus is tokenised."""


class Encoding:
    """Texts to ids with one vocabulary, ours and theirs in turn, in the same number of threads.

    The vocabulary is learned from the texts first. Theirs is the same vocabulary, saved and read back by the
    library alone. It is timed twice: with ``encode_batch``, which also finds each token's place in the text,
    and with ``encode_batch_fast``, which gives ids only, as ours does.

    Args:
        tokenizer: a `tokenizer` component that learns a vocabulary and saves it as a ``tokenizer.json``.
        path: a directory; every ``.py`` file under it is a text. Python's standard library when None.
        n_files: the first so many of them; all when None.
        n_rounds: how often each side is timed.
    """

    def __init__(
        self,
        tokenizer: Callable[[Iterable[str]], Tokenizer],
        path: str | None = None,
        n_files: Count | None = None,
        n_rounds: Count = 3,
        name: str = "encoding",
    ) -> None:
        self.tokenizer, self.path, self.n_files = tokenizer, path, n_files
        self.n_rounds, self.name = n_rounds, name

    def measure(self, run: Run) -> dict[str, float]:
        """``ratio``: our seconds over ``encode_batch``'s (below 1 is faster) with quartiles.

        ``ratio_fast`` is over ``encode_batch_fast``; ``identical`` is 1 when every id of every text is the
        same; and millions of bytes of text a second of all three.

        Raises:
            ConfigError: there are no texts, or the tokenizer is none that the library reads.
        """
        texts = self._texts()
        ours = self.tokenizer(texts)
        theirs = _theirs(ours, run.directory / "tokenizer")
        batches = list(_batches(texts))

        def over(encode: Callable[..., object], **options: bool) -> Callable[[], None]:
            def all_batches() -> None:
                for batch in batches:
                    encode(batch, **options)

            return all_batches

        sides = {
            "ours": over(lambda batch: encode_batch(ours, batch)),
            "encode_batch": over(lambda batch: theirs.encode_batch(batch, add_special_tokens=False)),
            "encode_batch_fast": over(
                lambda batch: theirs.encode_batch_fast(batch, add_special_tokens=False)
            ),
        }
        with run.progress("encoding", (self.n_rounds + 1) * len(sides), unit="rounds") as progress:
            timings = alternate(sides, n_rounds=self.n_rounds, advance=progress.advance)
        run.log_table("timings", list(sides), list(zip(*timings.seconds.values(), strict=True)))
        ratio, low, high = timings.ratio("ours", "encode_batch")
        n_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return {
            "ratio": ratio,
            "ratio_low": low,
            "ratio_high": high,
            "ratio_fast": timings.ratio("ours", "encode_batch_fast")[0],
            "identical": float(_identical(ours, theirs, batches)),
            "mb_per_second": n_bytes / timings.median("ours") / 1e6,
            "encode_batch_mb_per_second": n_bytes / timings.median("encode_batch") / 1e6,
            "encode_batch_fast_mb_per_second": n_bytes / timings.median("encode_batch_fast") / 1e6,
            "n_bytes": float(n_bytes),
            "n_files": float(len(texts)),
        }

    def _texts(self) -> list[str]:
        root = Path(self.path or sysconfig.get_path("stdlib")).expanduser()
        found = sorted(file for file in root.rglob("*.py") if "site-packages" not in file.parts)
        # A few of the library's tests are not UTF-8, on purpose.
        texts = [file.read_bytes().decode("utf-8", "replace") for file in found[: self.n_files]]
        if not any(texts):
            raise ConfigError("path", root, "has no .py file with text in it")
        return texts


def _theirs(ours: Tokenizer, directory: Path) -> tokenizers.Tokenizer:
    ours.save(directory)
    try:
        theirs = tokenizers.Tokenizer.from_file(str(directory / VOCABULARY_FILE))
    except Exception as error:  # the library raises bare Exception
        mend = (
            "its tokenizer.json is none of Hugging Face's; use tokenizer@benchmark.tokenizer=bpe or unigram"
        )
        raise ConfigError("tokenizer", type(ours).__name__, mend) from error
    theirs.encode_special_tokens = True  # as ours has it: text spells no special token
    return theirs


def _batches(texts: Sequence[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if sum(map(len, batch)) >= BATCH_CHARACTERS:
            yield batch
            batch = []
    if batch:
        yield batch


def _identical(ours: Tokenizer, theirs: tokenizers.Tokenizer, batches: Sequence[Sequence[str]]) -> bool:
    return all(
        [one.ids for one in theirs.encode_batch(batch, add_special_tokens=False)] == encode_batch(ours, batch)
        for batch in batches
    )
