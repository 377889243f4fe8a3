"""A model whose encoder reads the prompt and whose decoder writes, with all that the engine can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm.generation.engine import Completion, Generator
from llm.generation.sampling import Settings
from llm.models.cache import KVCache
from llm.models.decoder import Decoder
from llm.types import Batch, ConfigError
from tests.generation.fakes import ByteTokenizer
from tests.models.composition import small

PROMPTS = [[72, 101, 108, 108, 111], [65], [10, 66, 200, 3, 9, 9, 1, 2, 40], [65, 66]]
GREEDY = Settings(temperature=0, max_new_tokens=10)


class Translator(nn.Module):
    """Its encoder is the mean of an embedding, which its decoder adds to what it reads."""

    start_id = 7

    def __init__(self, max_seq_len: int = 32) -> None:
        super().__init__()
        self.decoder: Decoder = small(vocab_size=257, max_seq_len=max_seq_len)
        self.encoder = nn.Embedding(257, 48)
        nn.init.normal_(self.encoder.weight, std=0.3, generator=torch.Generator().manual_seed(1))
        self.vocab_size, self.max_seq_len, self.blocks = 257, max_seq_len, self.decoder.blocks

    def hidden(self, batch: Batch, cache: KVCache | None = None) -> Tensor:
        if cache is None or cache.context is None:
            assert batch.source is not None
            context = self.encoder(batch.source)
            there = batch.source_padding
        else:
            assert batch.source is None, "read once"
            context, there = cache.context, cache.context_padding
        if cache is not None:
            cache.context, cache.context_padding = context, there
        kept = torch.ones(context.shape[:2]) if there is None else there.float()
        mean = (context * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return self.decoder.hidden(replace(batch, source=None, source_padding=None), cache) + mean[:, None]

    def head(self, hidden: Tensor) -> Tensor:
        return self.decoder.head(hidden)

    def init_weights(self, generator: torch.Generator) -> None: ...

    def parallel_plan(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="module")
def model() -> Translator:
    return Translator().eval()


@torch.no_grad()
def _greedy(model: Any, prompt: list[int], n_new: int) -> tuple[list[int], list[float]]:
    """Reads everything again for every token."""
    written, log_probs = [model.start_id], []
    for _ in range(n_new):
        batch = Batch(torch.tensor([written]), source=torch.tensor([[*prompt, 256]]))
        best = model.head(model.hidden(batch))[0, -1].log_softmax(-1).max(-1)
        written.append(int(best.indices))
        log_probs.append(float(best.values))
        if written[-1] == 256:
            break
    return written[1:], log_probs


@pytest.mark.parametrize("cache", ["growing", "static"])
def test_batches_of_mixed_lengths(model: Translator, cache: Any):
    together = Generator(model, ByteTokenizer()).generate(PROMPTS, replace(GREEDY, cache=cache))
    for prompt, completion in zip(PROMPTS, together, strict=True):
        ids, log_probs = _greedy(model, prompt, 10)
        assert list(completion.ids) == ids
        assert completion.log_probs == pytest.approx(log_probs, abs=1e-4)
        assert completion.n_prompt_tokens == len(prompt) + 1
    assert len({completion.ids for completion in together}) > 1, "the source matters"


def test_rows_that_end_early_keep_their_own_source(model: Translator):
    generator = Generator(model, ByteTokenizer())
    free = generator.generate(PROMPTS, GREEDY)
    stops = (free[0].ids[2], free[2].ids[5])
    lengths = set()
    stopped = generator.generate(PROMPTS, replace(GREEDY, stop_ids=stops))
    for before, after in zip(free, stopped, strict=True):
        cut = next((i + 1 for i, token in enumerate(before.ids) if token in stops), len(before.ids))
        assert after.ids == before.ids[:cut]
        lengths.add(cut)
    assert len(lengths) > 1


def test_beams(model: Translator):
    """The sum of what the model finds, searched with rows that move; as each prompt has it alone."""
    generator = Generator(model, ByteTokenizer())
    settings = replace(GREEDY, n_beams=3)
    together = generator.generate(PROMPTS, settings)
    found = generator.log_probs(PROMPTS, [completion.ids for completion in together])
    for prompt, completion, log_probs in zip(PROMPTS, together, found, strict=True):
        assert completion.log_probs == pytest.approx(log_probs, abs=1e-4)
        assert completion.score == pytest.approx(sum(log_probs) / len(log_probs), abs=1e-4)
        (alone,) = generator.generate([prompt], settings)
        assert alone.ids == completion.ids


def test_a_penalty_counts_what_was_written(model: Translator):
    """And the token that the decoder starts from, not the source."""
    generator = Generator(model, ByteTokenizer())
    (completion,) = generator.generate(
        [PROMPTS[0]], replace(GREEDY, repetition_penalty=1e9, max_new_tokens=30)
    )
    assert len(set(completion.ids)) == len(completion.ids)
    assert Translator.start_id not in completion.ids


def test_a_stream(model: Translator):
    generator = Generator(model, ByteTokenizer())
    *pieces, last = generator.stream(PROMPTS[0], GREEDY)
    assert isinstance(last, Completion)
    assert "".join(str(piece) for piece in pieces) == last.text
    assert list(last.ids) == _greedy(model, PROMPTS[0], 10)[0]


def test_the_context_is_the_encoders_and_the_decoders_each():
    generator = Generator(Translator(max_seq_len=8).eval(), ByteTokenizer())
    (completion,) = generator.generate([[1] * 7], replace(GREEDY, max_new_tokens=100))
    assert len(completion.ids) == 8
    ended = generator.generate([[1] * 7 + [256]], replace(GREEDY, max_new_tokens=100))
    assert ended == [completion], "a source ends once"
    with pytest.raises(ConfigError, match=r"prompt=\(9 tokens\): the model reads at most max_seq_len=8"):
        generator.generate([[1] * 8], GREEDY)
