"""Beam search against transformers' on random models, and its ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from llm.checkpoints.huggingface import load_pretrained
from llm.generation.engine import Completion, Generator
from llm.generation.sampling import Settings
from llm.types import ConfigError
from tests.generation.fakes import ByteTokenizer, Script
from tests.models.composition import small

EOS = 1
IDS = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": EOS, "eos_token_id": EOS}
SIZES = {
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64},
    "llama": {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
        "max_position_embeddings": 64,
    },
}
PROMPTS = [[5, 6, 7, 8, 9], [10], [20, 21, 22]]
BEAMS = Settings(n_beams=4, temperature=0, max_new_tokens=12)


class Letters(ByteTokenizer):
    eos_id = EOS

    def decode(self, ids: Any) -> str:
        return "".join(chr(200 + i) for i in ids if i != EOS)


@pytest.fixture(scope="module", params=SIZES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Generator]:
    """Transformers' model, and a generator with ours of the same weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(11)
    config = transformers.AutoConfig.for_model(request.param, **IDS, **SIZES[request.param])
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in theirs.parameters():  # as decided as a trained one, and some answers end early
        parameter.data.mul_(2.5 if parameter.dim() > 1 else 1.0)
    nn.init.normal_(theirs.lm_head.weight[EOS], std=0.15)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs, Generator(load_pretrained(folder).eval(), Letters())


def _theirs(model: Any, prompts: list[list[int]], **settings: Any) -> list[tuple[list[int], float]]:
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        tokens,
        attention_mask=mask,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    answers = []
    for row, score in zip(out.sequences[:, longest:].tolist(), out.sequences_scores.tolist(), strict=True):
        answers.append((row[: row.index(EOS) + 1] if EOS in row else row, score))
    return answers


@pytest.mark.parametrize("cache", ["growing", "static"])
@pytest.mark.parametrize(("n_beams", "length_penalty"), [(4, 1.0), (3, 0.0), (2, 2.0), (5, -1.0)])
def test_as_transformers(pair: Any, n_beams: int, length_penalty: float, cache: Any):
    theirs, generator = pair
    settings = replace(BEAMS, n_beams=n_beams, length_penalty=length_penalty, cache=cache)
    expected = _theirs(theirs, PROMPTS, num_beams=n_beams, length_penalty=length_penalty, max_new_tokens=12)
    for completion, (ids, score) in zip(generator.generate(PROMPTS, settings), expected, strict=True):
        assert list(completion.ids) == ids
        assert completion.score == pytest.approx(score, abs=1e-4)
        total = sum(completion.log_probs) / len(ids) ** length_penalty
        assert total == pytest.approx(score, abs=1e-4)
        assert completion.finish_reason == ("stop" if ids[-1] == EOS else "length")


def test_the_examples_tell_beams_from_greed(pair: Any):
    _, generator = pair
    beams, greedy = generator.generate(PROMPTS, BEAMS), generator.generate(PROMPTS, replace(BEAMS, n_beams=1))
    assert any(one.ids != other.ids for one, other in zip(beams, greedy, strict=True))
    assert {completion.finish_reason for completion in beams} == {"stop", "length"}
    means = [[sum(one.log_probs) / len(one.ids) for one in found] for found in (beams, greedy)]
    assert any(beam > greed + 1e-3 for beam, greed in zip(*means, strict=True))


def test_a_repetition_penalty_is_as_theirs(pair: Any):
    theirs, generator = pair
    ((ids, _),) = _theirs(theirs, PROMPTS[:1], num_beams=3, repetition_penalty=1.5, max_new_tokens=12)
    (plain,) = generator.generate(PROMPTS[:1], replace(BEAMS, n_beams=3))
    (completion,) = generator.generate(PROMPTS[:1], replace(BEAMS, n_beams=3, repetition_penalty=1.5))
    assert list(completion.ids) == ids != list(plain.ids)


def test_each_prompt_is_searched_as_if_alone(pair: Any):
    _, generator = pair
    together = generator.generate(PROMPTS, BEAMS)
    for prompt, completion in zip(PROMPTS, together, strict=True):
        (alone,) = generator.generate([prompt], BEAMS)
        assert (alone.ids, alone.text) == (completion.ids, completion.text)


def test_stop_texts_end_a_beam(pair: Any):
    """Also over the borders of tokens; whatever is written ends at the first one and does not show it."""
    _, generator = pair
    free = generator.generate(PROMPTS, BEAMS)
    stops = [completion.text[4:6] for completion in free if len(completion.text) > 8]
    assert stops
    for completion in generator.generate(PROMPTS, replace(BEAMS, stop=stops)):
        assert not any(stop in completion.text for stop in stops)
        whole = Letters().decode(completion.ids)
        if completion.finish_reason == "stop" and completion.ids[-1] != EOS:
            assert whole[len(completion.text) :] in stops
    stopped = generator.generate(PROMPTS, replace(BEAMS, stop=stops))
    assert [c.ids for c in stopped] != [c.ids for c in free]


def test_a_stream_of_beams_is_one_piece(pair: Any):
    _, generator = pair
    (whole,) = generator.generate(PROMPTS[:1], BEAMS)
    piece, last = generator.stream(PROMPTS[0], BEAMS)
    assert last == whole
    assert piece == whole.text != ""


def test_alternatives_belong_to_the_beam(pair: Any):
    _, generator = pair
    (completion,) = generator.generate(PROMPTS[:1], replace(BEAMS, top_log_probs=3))
    assert len(completion.top_log_probs) == len(completion.ids)
    for token, log_prob, top in zip(
        completion.ids, completion.log_probs, completion.top_log_probs, strict=True
    ):
        assert dict(top).get(token, log_prob) == pytest.approx(log_prob, abs=1e-6)
        assert max(dict(top).values()) >= log_prob
    assert any(
        token in dict(top) for token, top in zip(completion.ids, completion.top_log_probs, strict=True)
    )


def test_fewer_tokens_than_beams():
    """Everything that can be written is found, and the best of it."""

    class Three(ByteTokenizer):
        vocab_size, eos_id = 3, None

    model = small(vocab_size=3).eval()
    one = Generator(model, Three()).generate([[1, 2]], Settings(n_beams=9, temperature=0, max_new_tokens=2))
    pairs = [(a, b) for a in range(3) for b in range(3)]
    totals = [sum(found) for found in Generator(model, Three()).log_probs([[1, 2]] * 9, pairs)]
    best = max(range(9), key=totals.__getitem__)
    assert one[0].ids == pairs[best]
    assert one[0].score == pytest.approx(totals[best] / 2, abs=1e-5)


def test_beams_and_the_end_of_the_context():
    model = small(vocab_size=257, max_seq_len=8).eval()
    completions = Generator(model, ByteTokenizer()).generate([[1] * 8, [1], [2] * 5], BEAMS)
    assert [len(c.ids) for c in completions] == [1, 8, 4]
    assert {c.finish_reason for c in completions} == {"length"}


def test_a_sure_model_needs_one_beam():
    completion: Completion = Generator(Script([*b"Hi, you", 256, *b"...."], 1), ByteTokenizer()).generate(
        [[65]], replace(BEAMS, n_beams=2, stop=["you"])
    )[0]
    assert (completion.text, completion.finish_reason) == ("Hi, ", "stop")


def test_beams_leave_nothing_to_chance():
    with pytest.raises(ConfigError) as error:
        Settings(n_beams=4)
    assert str(error.value) == ("n_beams=4: beams leave nothing to chance, and temperature=0.8; set it to 0")
