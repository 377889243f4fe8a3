"""The engine against one pass per token without a cache, and its ends: stops, lengths, contexts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llm.generation.engine import Completion, Generator
from llm.generation.sampling import Settings, randomness, sample
from llm.models.decoder import Decoder
from llm.types import Batch, ConfigError
from tests.generation.fakes import ByteTokenizer, Script
from tests.models.composition import small

PROMPTS = [[72, 101, 108, 108, 111], [65], [10, 66, 200, 3, 9, 9, 1, 2, 40], [65, 66]]
SETTINGS = Settings(max_new_tokens=12, temperature=1.0, top_p=0.95, seed=11)


@pytest.fixture(params=["decoder", "gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Decoder:
    heads = {"n_kv_heads": 2} if request.param == "llama" else {}
    return small(request.param, vocab_size=257, **heads).eval()


def _one_by_one(model: Decoder, prompt: list[int], settings: Settings) -> tuple[list[int], list[float]]:
    """Reads everything again for every token."""
    ids, log_probs, states = list(prompt), [], randomness(settings.seed, 1)
    with torch.no_grad():
        for _ in range(settings.max_new_tokens):
            token, log_prob = sample(model(Batch(torch.tensor([ids])))[:, -1], settings, states)
            ids.append(int(token))
            log_probs.append(float(log_prob))
            if ids[-1] == ByteTokenizer.eos_id:
                break
    return ids[len(prompt) :], log_probs


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_cache_changes_nothing(model: Decoder, temperature: float):
    settings = replace(SETTINGS, temperature=temperature)
    generator = Generator(model, ByteTokenizer())
    for prompt in PROMPTS:
        (completion,) = generator.generate([prompt], settings)
        ids, log_probs = _one_by_one(model, prompt, settings)
        assert list(completion.ids) == ids
        assert completion.log_probs == pytest.approx(log_probs, abs=1e-5)
        assert completion.n_prompt_tokens == len(prompt)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_mixed_lengths_changes_nothing(model: Decoder, temperature: float):
    settings = replace(SETTINGS, temperature=temperature)
    together = Generator(model, ByteTokenizer()).generate(PROMPTS, settings)
    for i, (prompt, completion) in enumerate(zip(PROMPTS, together, strict=True)):
        ids, log_probs = _one_by_one(model, prompt, replace(settings, seed=settings.seed + i))
        assert list(completion.ids) == ids
        assert completion.log_probs == pytest.approx(log_probs, abs=1e-5)


def test_rows_that_end_early_leave_the_others_alone(model: Decoder):
    generator = Generator(model, ByteTokenizer())
    free = generator.generate(PROMPTS, SETTINGS)
    stops = (free[0].ids[2], free[2].ids[5])
    stopped = generator.generate(PROMPTS, replace(SETTINGS, stop_ids=stops))
    lengths = set()
    for before, after in zip(free, stopped, strict=True):
        cut = next((i + 1 for i, token in enumerate(before.ids) if token in stops), len(before.ids))
        assert after.ids == before.ids[:cut]
        assert after.log_probs == pytest.approx(before.log_probs[:cut], abs=1e-5)
        assert after.finish_reason == ("stop" if cut < len(before.ids) else before.finish_reason)
        lengths.add(cut)
    assert len(lengths) > 1


def test_a_stream_is_the_completion_in_pieces(model: Decoder):
    generator = Generator(model, ByteTokenizer())
    (whole,) = generator.generate([PROMPTS[0]], SETTINGS)
    *pieces, last = generator.stream(PROMPTS[0], SETTINGS)
    assert last == whole
    assert "".join(pieces) == whole.text == ByteTokenizer().decode(whole.ids)
    assert len(pieces) > 1


def test_seeds(model: Decoder):
    generator = Generator(model, ByteTokenizer())

    def write(seed: int | None) -> tuple[int, ...]:
        return generator.generate([[65]], replace(SETTINGS, seed=seed))[0].ids

    assert write(1) == write(1)
    assert write(1) != write(2)
    assert write(None) != write(None)
    state = torch.get_rng_state()
    write(None)
    assert torch.equal(state, torch.get_rng_state())


def _scripted(text: str | bytes, **settings: object) -> Completion:
    script = [*(text.encode() if isinstance(text, str) else text), 256]
    generator = Generator(Script(script, 1), ByteTokenizer())
    return generator.generate([[65]], Settings(**{"max_new_tokens": 50, "temperature": 0.0, **settings}))[0]


def test_the_end_of_a_document_ends_it():
    completion = _scripted("Hi, 世界")
    assert (completion.text, completion.finish_reason) == ("Hi, 世界", "stop")
    assert completion.ids == (*"Hi, 世界".encode(), 256)
    assert completion.log_probs == pytest.approx([0.0] * 11, abs=1e-6)


def test_stop_texts_end_it():
    completion = _scripted("one\nUser: two", stop=["User:"])
    assert (completion.text, completion.finish_reason) == ("one\n", "stop")
    assert bytes(completion.ids) == b"one\nUser:"


def test_a_stop_text_completed_by_the_last_token_counts_as_stop():
    assert _scripted("abEND...", stop=["END"], max_new_tokens=5).finish_reason == "stop"
    completion = _scripted("abEND...", stop=["END"], max_new_tokens=4)
    assert (completion.text, completion.finish_reason) == ("abEN", "length")


def test_max_new_tokens():
    completion = _scripted("a世界", max_new_tokens=3)
    assert (completion.text, completion.finish_reason) == ("a\ufffd", "length")
    assert len(completion.ids) == 3


def test_the_end_of_the_context_ends_it():
    model = small(vocab_size=257, max_seq_len=8).eval()
    settings = replace(SETTINGS, max_new_tokens=100, temperature=0.0)
    completions = Generator(model, ByteTokenizer()).generate([[1] * 8, [1], [2] * 5], settings)
    # The last token is written and never read.
    assert [len(c.ids) for c in completions] == [1, 8, 4]
    assert {c.finish_reason for c in completions} == {"length"}
    for completion, prompt in zip(completions, ([1] * 8, [1], [2] * 5), strict=True):
        expected, _ = _one_by_one(model, prompt, replace(settings, max_new_tokens=len(completion.ids)))
        assert list(completion.ids) == expected


def test_a_prompt_beyond_the_context():
    generator = Generator(small(vocab_size=257, max_seq_len=8), ByteTokenizer())
    with pytest.raises(ConfigError) as error:
        generator.stream([1] * 9, SETTINGS)
    assert str(error.value) == "prompt=(9 tokens): the model reads at most max_seq_len=8 tokens; shorten it"


def test_an_empty_prompt_starts_a_document(model: Decoder):
    tokenizer = ByteTokenizer()
    generator = Generator(model, tokenizer)
    assert generator.generate([[]], SETTINGS) == generator.generate([[256]], SETTINGS)
    tokenizer.eos_id = None
    with pytest.raises(ConfigError, match="prompt=: is empty"):
        generator.generate([[]], SETTINGS)
    assert generator.generate([], SETTINGS) == []


def test_the_model_keeps_its_mode():
    model = small("gpt2", vocab_size=257, dropout=0.5).train()
    generator = Generator(model, ByteTokenizer())
    assert generator.generate([[65]], SETTINGS) == generator.generate([[65]], SETTINGS), "dropout was on"
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_closing_a_stream_ends_the_work():
    model = Script(list(range(65, 90)), 1)
    stream = Generator(model, ByteTokenizer()).stream([65], replace(SETTINGS, max_new_tokens=20))
    assert next(stream) == "A"
    stream.close()
    assert model.calls == 1


def test_log_probs_are_those_that_were_written(model: Decoder):
    generator = Generator(model, ByteTokenizer())
    written = generator.generate(PROMPTS, SETTINGS)
    found = generator.log_probs(PROMPTS, [completion.ids for completion in written])
    for completion, log_probs in zip(written, found, strict=True):
        assert log_probs == pytest.approx(completion.log_probs, abs=1e-5)
    assert generator.log_probs([[65], [65, 66]], [[], [67]])[0] == ()
    with pytest.raises(ConfigError, match="max_seq_len=32 tokens; shorten it"):
        generator.log_probs([[65] * 20], [[65] * 14])


def test_alternatives_hold_what_was_taken(model: Decoder):
    generator = Generator(model, ByteTokenizer())
    for completion in generator.generate(PROMPTS, replace(SETTINGS, temperature=0, top_log_probs=2)):
        taken = zip(completion.ids, completion.log_probs, strict=True)
        for (token, log_prob), top in zip(taken, completion.top_log_probs, strict=True):
            assert top[0] == (token, pytest.approx(log_prob, abs=1e-6))
            assert len(top) == 2
            assert top[1][1] <= top[0][1]
    assert generator.generate([[65]], SETTINGS)[0].top_log_probs == ()


def test_a_penalty_counts_the_prompt_and_not_the_padding(model: Decoder):
    """So large that nothing is written twice; and the rows of a batch are what each is alone."""
    generator, settings = Generator(model, ByteTokenizer()), replace(SETTINGS, repetition_penalty=1e9)
    together = generator.generate(PROMPTS, replace(settings, temperature=0))
    for prompt, completion in zip(PROMPTS, together, strict=True):
        assert len({*prompt, *completion.ids}) == len(set(prompt)) + len(completion.ids)
        (alone,) = generator.generate([prompt], replace(settings, temperature=0))
        assert alone.ids == completion.ids
    plain = generator.generate(PROMPTS, replace(SETTINGS, temperature=0))
    assert [completion.ids for completion in plain] != [completion.ids for completion in together]


def test_stop_texts_in_a_batch(model: Decoder):
    """Each row ends at its own; over the border of two tokens."""
    generator = Generator(model, ByteTokenizer())
    free = generator.generate(PROMPTS, replace(SETTINGS, max_new_tokens=16))
    stops = [completion.text[3:5] for completion in free[::2]]
    stopped = generator.generate(PROMPTS, replace(SETTINGS, max_new_tokens=16, stop=stops))
    for before, after in zip(free, stopped, strict=True):
        ends = [at for stop in stops if (at := before.text.find(stop)) >= 0]
        assert after.text == before.text[: min(ends, default=len(before.text))]
        assert after.finish_reason == ("stop" if ends else before.finish_reason)
    assert len({len(completion.ids) for completion in stopped}) > 1
