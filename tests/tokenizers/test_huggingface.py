"""Tokenizers of the open ecosystem: transformers' ids, files that go both ways, text that stays text."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llm.tokenizers import base, bpe, byte, character
from llm.tokenizers.chat import TEMPLATE, ChatML
from llm.tokenizers.huggingface import HuggingFaceTokenizer, read
from llm.tokenizers.template import template_for
from llm.types import ConfigError, Message

transformers = pytest.importorskip("transformers")

TEXTS = [
    "First Citizen: before we proceed any further, hear me speak.\n",
    "  two  spaces, a\ttab\n\n\nand héllo wörld 12345 \u00a0 日本",
    "",
    " ",
]
LEARNED = [*TEXTS[:2], "hello there, speak further", "before before further further"] * 5
SPECIAL = ["<s>", "</s>", "<|end|>"]
LETTERS = "▁abcdefghijklmnopqrstuvwxyz.,:!/<|>"


def byte_level() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learn = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(LEARNED, learn)
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 0)])
    return backend


def unigram() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    learn = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(LEARNED, learn)
    return backend


def sentence_piece(scheme: str) -> tokenizers.Tokenizer:
    """LLaMA's form: a byte-pair encoding over metaspaces with bytes to fall back on."""
    pieces = [
        "<unk>",
        *SPECIAL,
        *(f"<0x{n:02X}>" for n in range(256)),
        *"▁abcdefghijklmnopqrstuvwxyz.,:!/<|>",
    ]
    merges = [("▁", "h"), ("e", "r"), ("▁h", "e"), ("▁", "f"), ("l", "l"), ("▁he", "ll"), ("▁hell", "o")]
    vocabulary = {piece: n for n, piece in enumerate([*pieces, *("".join(pair) for pair in merges)])}
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(strip)
    backend.add_special_tokens([AddedToken(one, normalized=False) for one in ["<unk>", *SPECIAL]])
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return backend


MAKERS = {
    "byte-level": byte_level,
    "unigram": unigram,
    "sentencepiece": lambda: sentence_piece("first"),
    "sentencepiece, always": lambda: sentence_piece("always"),
}


@functools.cache
def _trained(name: str) -> str:
    return MAKERS[name]().to_str()


def made(name: str) -> tokenizers.Tokenizer:
    """One for the test to change; a unigram model comes out a little different each time it is trained."""
    return tokenizers.Tokenizer.from_str(_trained(name))


@pytest.fixture(scope="module", params=MAKERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers' tokenizer, and the directory it saved itself to."""
    folder = tmp_path_factory.mktemp("theirs")
    backend = made(request.param)
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    if backend.token_to_id("<unk>") is not None:
        names["unk_token"] = "<unk>"
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, additional_special_tokens=["<|end|>"], **names
    )
    theirs.chat_template = "{% for message in messages %}{{ message.content + '<|end|>' }}{% endfor %}"
    theirs.save_pretrained(folder)
    return theirs, folder


def test_ids_and_text_are_those_of_transformers(pair: tuple[Any, Path]) -> None:
    theirs, folder = pair
    ours = base.load(folder)
    assert isinstance(ours, HuggingFaceTokenizer)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
    assert base.encode_batch(ours, TEXTS) == [ours.encode(text) for text in TEXTS]
    assert (ours.eos_id, ours.bos_id) == (theirs.eos_token_id, theirs.bos_token_id)
    begun = theirs.encode("a")
    assert ours.opening_ids == ((theirs.bos_token_id,) if begun[0] == theirs.bos_token_id else ())
    assert ours.chat_template == theirs.chat_template
    assert ours.vocab_size == len(theirs)


def test_it_saves_what_it_loads_and_what_transformers_loads(pair: tuple[Any, Path], tmp_path: Path) -> None:
    theirs, folder = pair
    ours = base.load(folder)
    ours.save(tmp_path / "saved")
    again = base.load(tmp_path / "saved")
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS:
        assert again.encode(text) == ours.encode(text)
        assert back.encode(text) == theirs.encode(text)
    assert base.special_ids(again) == base.special_ids(ours)
    assert back.chat_template == theirs.chat_template
    assert (back.eos_token, back.bos_token) == ("</s>", "<s>")
    again.save(tmp_path / "again")
    for file in (tmp_path / "saved").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


NAMES = st.sampled_from([*SPECIAL, "<unk>", "<", "s>", "/s>", "|end|>", "<|", "a", " ", "hello"])


@given(parts=st.lists(NAMES, max_size=8))
@settings(max_examples=40)
@pytest.mark.parametrize("name", MAKERS)
def test_text_never_becomes_a_special_id(name: str, parts: list[str]) -> None:
    ours = loaded(name)
    ids = ours.encode("".join(parts))
    assert set(SPECIAL) <= set(ours.special_ids)
    assert not set(ids) & set(ours.special_ids.values())


@functools.cache
def loaded(name: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(
        made(name), {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<|end|>"]}
    )


@pytest.mark.parametrize("name", MAKERS)
def test_text_that_goes_on_is_encoded_as_in_the_whole(name: str) -> None:
    ours = loaded(name)
    backend = made(name)
    for before, after in [("hello", " hello there"), ("speak.\n", "further")]:
        whole = backend.encode(f"{before}{after}", add_special_tokens=False).ids
        assert [*ours.encode(before), *ours.continued(after)] == whole
    whole = backend.encode("hello<|end|>further", add_special_tokens=False).ids
    end = ours.special_ids["<|end|>"]
    assert [*ours.encode("hello"), end, *ours.after_special("further")] == whole


# ----------------------------------------------------------------------------- facts in other files


def save(folder: Path, **config: Any) -> Path:
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_older_files_and_what_ends_an_answer(tmp_path: Path) -> None:
    save(tmp_path, bos_token={"content": "<s>"}, auto_map={"AutoTokenizer": "x.py"}, add_bos_token=False)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1], "temperature": 0.5}))
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    ours = read(tmp_path)
    assert (ours.eos_id, ours.bos_id, ours.answer_end_ids, ours.opening_ids) == (1, 0, (1, 2), ())
    assert ours.chat_template == "{{ messages[0].content }}"
    assert "auto_map" not in ours.config  # names code to run
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "eos_token_id": [1, 2],
        "temperature": 0.5,
    }
    assert read(tmp_path).chat_template == ours.chat_template


def test_templates_by_name(tmp_path: Path) -> None:
    named = [{"name": "tools", "template": "a"}, {"name": "default", "template": "b"}]
    assert read(save(tmp_path, chat_template=named)).chat_template == "b"
    with pytest.raises(ConfigError, match="is not text"):
        read(save(tmp_path, chat_template=5))


@pytest.mark.parametrize(
    ("name", "content", "mend"),
    [
        ("tokenizer.json", None, "cannot be read"),
        ("tokenizer.json", "{}", "not a Hugging Face tokenizer"),
        ("tokenizer.json", "{", "not JSON"),
        ("tokenizer_config.json", "[]", "not a JSON object"),
        ("generation_config.json", "{", "not JSON"),
    ],
)
def test_damaged_files(name: str, content: str | None, mend: str, tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=mend) as caught:
        base.load(tmp_path, key="tokenizer.directory")
    assert caught.value.key == "tokenizer.directory"


# ----------------------------------------------------------------------------- ours, for others to read

CONVERSATION = (
    Message("system", "You are brief."),
    Message("user", "What is 2 + 2?"),
    Message("assistant", "It is 4."),
    Message("user", "And?"),
)
KNOWN = [turn.content for turn in CONVERSATION] + ["systemuserassistant\n"]
OURS = {
    "bpe": lambda: bpe.train(KNOWN * 5, vocab_size=300),
    "byte": lambda: byte.train([]),
    "character": lambda: character.train(KNOWN, special_tokens=True),
}


@pytest.mark.parametrize("kind", OURS)
def test_transformers_reads_ours_with_chatml(kind: str, tmp_path: Path) -> None:
    ours = OURS[kind]()
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (len(theirs), theirs.eos_token_id) == (ours.vocab_size, ours.eos_id)
    for text in KNOWN:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    messages = [turn._asdict() for turn in CONVERSATION]
    want = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = ChatML(ours).render(CONVERSATION)
    assert ids == list(want["input_ids"])
    assert mask == [bool(one) for one in want["assistant_masks"]]
    prompt = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert ChatML(ours).render(CONVERSATION, add_generation_prompt=True)[0] == list(prompt["input_ids"])
    back = base.load(tmp_path)
    assert isinstance(back, HuggingFaceTokenizer)
    assert back.chat_template == TEMPLATE
    assert isinstance(template_for(back), ChatML)
    assert template_for(back).stop_ids == ChatML(ours).stop_ids
    assert base.special_ids(back) == ours.special_ids


def test_a_vocabulary_without_markers_has_no_template(tmp_path: Path) -> None:
    character.train(["abc"]).save_pretrained(tmp_path)
    assert read(tmp_path).chat_template is None
    with pytest.raises(ConfigError, match="cannot chat"):
        template_for(read(tmp_path))


def test_half_a_surrogate_pair_cannot_leave(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="half of a surrogate pair"):
        character.train(["a\ud800"]).save_pretrained(tmp_path)
