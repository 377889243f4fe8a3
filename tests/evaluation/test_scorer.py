"""Log-likelihoods against one-text-at-a-time float64 references."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm.evaluation.scorer import Scorer
from llm.evaluation.spans import windows
from llm.tokenizers.character import train as character_tokenizer
from llm.types import Batch, ConfigError, Message, Request
from tests.evaluation.conftest import Wrapped, compose_decoder, reference_log_probs

REQUESTS = [
    Request("The sky is", " blue"),
    Request("The sky is", " made of cheese, they say"),
    Request("", "no prompt"),
    Request("é", "è: two bytes each"),
    Request((Message("user", "2 + 2?"),), "4"),
    Request((Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Bye")), "So long"),
]


def test_text_equals_reference(model: Wrapped, tokenizer: Any) -> None:
    responses = Scorer(model, tokenizer).respond(REQUESTS)
    for request, response in zip(REQUESTS[:4], responses[:4], strict=True):
        prompt, continuation = request.prompt.encode(), request.continuation.encode()  # type: ignore[union-attr]
        ids = [tokenizer.eos_id] * (not prompt) + tokenizer.encode(request.prompt + request.continuation)
        expected = reference_log_probs(model, ids)[-len(continuation) :]
        assert response.n_tokens == len(continuation)
        assert response.log_likelihood == pytest.approx(sum(expected), abs=1e-4)


def test_conversation_scores_only_the_last_turn_and_its_marker(model: Wrapped, tokenizer: Any) -> None:
    scorer = Scorer(model, tokenizer)
    responses = scorer.respond(REQUESTS[4:])
    for request, response in zip(REQUESTS[4:], responses, strict=True):
        prompt, _ = scorer.chat.render(request.prompt, add_generation_prompt=True)  # type: ignore[arg-type]
        answer = [*tokenizer.encode(request.continuation), scorer.chat.stop_ids[0]]
        expected = reference_log_probs(model, prompt + answer)[-len(answer) :]
        assert response.n_tokens == len(answer)
        assert response.log_likelihood == pytest.approx(sum(expected), abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_batching_changes_nothing(model: Wrapped, tokenizer: Any, batch_tokens: int) -> None:
    done: list[int] = []
    scorer = Scorer(model, tokenizer, batch_tokens=batch_tokens)
    responses = scorer.respond([*REQUESTS, Request("empty", "")], done.append)
    alone = [Scorer(model, tokenizer).respond([request])[0] for request in REQUESTS]
    assert [r.n_tokens for r in responses[:-1]] == [r.n_tokens for r in alone]
    assert [r.log_likelihood for r in responses[:-1]] == pytest.approx(
        [r.log_likelihood for r in alone], abs=1e-4
    )
    assert responses[-1] == (0.0, 0, "")
    assert sum(done) == len(REQUESTS) + 1


def test_long_continuation_scores_every_token_once(tokenizer: Any) -> None:
    """A text of three contexts: all tokens counted, and the first context's worth as if it stood alone."""
    model = Wrapped(tokenizer.vocab_size, 16)
    text = "abcdefghijklmnopqrstuvwxyz0123456789 and more"
    [response] = Scorer(model, tokenizer).respond([Request("", text)])
    assert response.n_tokens == len(text)
    ids = [tokenizer.eos_id, *tokenizer.encode(text)]
    total = 0.0
    for begin, first, end in windows(1, len(ids), 16):
        total += sum(reference_log_probs(model, ids[begin:end])[first - begin - 1 :])
    assert response.log_likelihood == pytest.approx(total, abs=1e-4)


def test_character_vocabulary_without_a_separator(model: Wrapped) -> None:
    """Nothing stands before the first character, so it alone stays unscored."""
    tokenizer = character_tokenizer(["abc"], special_tokens=False)
    assert tokenizer.eos_id is None
    scorer = Scorer(model, tokenizer)
    [response] = scorer.respond([Request("", "abca")])
    assert response.n_tokens == 3
    with pytest.raises(ConfigError, match="tokenizer"):
        scorer.respond([Request((Message("user", "a"),), "b")])


def test_model_is_left_as_found(model: Wrapped, tokenizer: Any) -> None:
    model.train()
    try:
        Scorer(model, tokenizer).respond(REQUESTS[:1])
        assert model.training
        assert model.llama.training
    finally:
        model.eval()


def test_generations_are_greedy_and_cut_to_the_context(tokenizer: Any) -> None:
    model = compose_decoder(tokenizer.vocab_size)
    scorer = Scorer(model, tokenizer)
    requests = [
        Request("x" * 100, None, 10),
        Request("a", "b"),
        Request((Message("user", "ok?"),), None, 5),
        Request("another prompt", None, 10),
        Request("", None, 3),
    ]
    done: list[int] = []
    responses = scorer.respond(requests, done.append)
    assert sum(done) == 5
    assert responses[1].n_tokens == 1
    for number in (0, 2, 3, 4):
        ids, stop = scorer.prompt_tokens(requests[number].prompt)
        n_new = requests[number].max_new_tokens
        ids, written = ids[-(64 - n_new) :], []
        while len(written) < n_new and not (written and written[-1] in stop):
            with torch.no_grad():
                written.append(int(model(Batch(torch.tensor([ids + written])))[0, -1].argmax()))
        assert responses[number].n_tokens == len(written)
        assert responses[number].text == tokenizer.decode([i for i in written if i not in stop])


def test_head_in_parts(model: Wrapped, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Scorer(model, tokenizer).respond(REQUESTS)
    monkeypatch.setattr("llm.evaluation.scorer.HEAD_TOKENS", 3)
    parts = Scorer(model, tokenizer).respond(REQUESTS)
    assert [r.log_likelihood for r in parts] == pytest.approx([r.log_likelihood for r in whole], abs=1e-4)
    assert torch.is_grad_enabled()
