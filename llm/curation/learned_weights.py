"""A mixture by weights that were learned, as task=doremi writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field

from llm.curation.mixture import Group, Mixture, capped, shares_of
from llm.inputs import digest, read_weights
from llm.types import ConfigError


class LearnedMixture(Mixture):
    """Shares from a weights file.

    DoReMi's weights are shares of the tokens that a model is trained on. Where the file also says how many
    bytes a token of each domain stands for, they are turned into shares of the bytes, which mixtures count.

    The total stays that of the corpus: what a domain cannot fill with `max_repeats` passes goes to the
    others, in proportion. With `max_repeats` 1 the shares are kept, and the scarcest domain limits the total.

    Args:
        path: The weights file, as ``RUN_DIR/weights.json``.
        max_repeats: Copies of a document at most; 1 never repeats.
        seed: Chooses which documents go or are repeated once more.
        by: Column whose values are the domains of the file, or several that make them up, joined by ``/``.
    """

    def __init__(
        self,
        path: str,
        max_repeats: Annotated[int, Field(ge=1)] = 4,
        seed: int = 0,
        by: str | list[str] = "domain",
    ) -> None:
        super().__init__(by, max_repeats, seed)
        self.path = path

    def prepare(self, say: Callable[[str], object]) -> None:
        """Reads the file once before anything else is done, so that a mistake in it costs nothing.

        Raises:
            ConfigError: it is missing or no weights file. Key `path`.
        """
        weights = read_weights(self.path, key="path").weights
        say("weights: " + ", ".join(f"{name} {share:.1%}" for name, share in weights.items()))

    def fingerprint(self) -> str:
        """A digest of the file."""
        return digest([self.path], key="path")

    def targets(self, n_bytes: Mapping[Group, int]) -> dict[Group, float]:
        """The file's shares of the corpus's bytes, scarce groups capped.

        Raises:
            ConfigError: the file is missing, or its domains are not those of the corpus. Key `path`.
        """
        file = read_weights(self.path, key="path")
        width = file.bytes_per_token or dict.fromkeys(file.weights, 1.0)
        by_bytes = {name: weight * width[name] for name, weight in file.weights.items()}
        try:
            shares = shares_of(by_bytes, list(n_bytes), "path")
        except ConfigError as mistake:
            name = mistake.key.removeprefix("path").lstrip(".")
            raise ConfigError("path", self.path, f"{name} {mistake.mend}".strip()) from None
        return capped(shares, n_bytes, self.max_repeats)
