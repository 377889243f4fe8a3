"""The tokenizer that a GGUF file carries in its metadata, as one of Hugging Face's.

Two kinds are known. ``gpt2`` is a byte-level byte-pair encoding: tokens and merges are listed, and the name
of the rule that splits text into words (``tokenizer.ggml.pre``). ``llama`` is SentencePiece's byte-pair
encoding: tokens with scores and no merges, which follow from the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from llm.tokenizers.huggingface import HuggingFaceTokenizer
from llm.tokenizers.ranks import GPT2, LLAMA3, ONE_DIGIT, QWEN2
from llm.types import ConfigError

CONTROL, USER_DEFINED = 3, 4
"""Kinds of token: a special one, and one that is always kept whole in a text."""

RULES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("default", "gpt-2", "gpt2", "mpt", "olmo", "jais", "phi-2", "gigachat"), (GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), (ONE_DIGIT, GPT2)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"), (LLAMA3,)),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"), (QWEN2,)),
}
"""What splits a text into words, by the name in the file; a rule splits what the one before left."""

WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3")
"""Where a word that is a token is taken as it is, whatever the merges."""

COMPOSED = ("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez")
"""Where text is brought to Unicode's composed form first."""


def from_metadata(metadata: Mapping[str, Any]) -> HuggingFaceTokenizer:
    """The tokenizer that the metadata of a GGUF file describe.

    Args:
        metadata: by the names in the file.

    Raises:
        ConfigError: for ``tokenizer``, when there is none, or its kind or its rule for splitting text is not
            known here.
    """
    kind = metadata.get("tokenizer.ggml.model")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if kind is None or not isinstance(tokens, Sequence) or not tokens:
        raise ConfigError("tokenizer", kind, "the file carries no tokenizer (no tokenizer.ggml.tokens)")
    if kind not in _KINDS:
        mend = f"the file's kind of tokenizer is not supported; supported: {', '.join(_KINDS)}"
        raise ConfigError("tokenizer", kind, mend)
    if len(set(tokens)) != len(tokens):
        raise ConfigError("tokenizer", kind, "the file lists a token twice (tokenizer.ggml.tokens)")
    try:
        backend = _KINDS[kind](metadata, tokens)
    except ConfigError:
        raise
    except Exception as error:  # the library raises bare Exception
        mend = f"the file's vocabulary cannot be used: {' '.join(str(error).split())}"
        raise ConfigError("tokenizer", kind, mend) from error
    _add_whole_tokens(backend, metadata, tokens)
    config: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    config["chat_template"] = metadata.get("tokenizer.chat_template")
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        known = isinstance(index, int) and 0 <= index < len(tokens)
        config[f"{name}_token"] = _spelled(backend, index) if known and index is not None else None
    config["add_bos_token"] = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"))
    bos = config["bos_token"]
    if config["add_bos_token"] and bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eot", "eom")]
    return HuggingFaceTokenizer(backend, config, [index for index in ends if isinstance(index, int)])


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer:
    rule = str(metadata.get("tokenizer.ggml.pre", "default"))
    if rule not in RULES:
        mend = f"splits text by the rule {rule!r}, which is not known here; known: {', '.join(RULES)}"
        raise ConfigError("tokenizer", "gpt2", mend)
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", ())]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule in WHOLE_WORDS)
    )
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in RULES[rule]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    backend.decoder = decoders.ByteLevel()
    if rule in COMPOSED:
        backend.normalizer = normalizers.NFC()
    return backend


def _sentence_piece(metadata: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer:
    gemma = str(metadata.get("general.architecture", "")).startswith("gemma")
    if gemma:  # runs of spaces are written as such there
        tokens = [token.replace(" ", "▁") if not token.strip(" ") else token for token in tokens]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    kinds = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    scores = metadata.get("tokenizer.ggml.scores")
    if gemma or scores is None:  # Gemma's scores do not follow its merges; its order of tokens does
        scores = [-index for index in range(len(tokens))]
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(tokens, scores, kinds),
            fuse_unk=True,
            byte_fallback=True,
            unk_token=tokens[unknown],
        )
    )
    ahead = bool(metadata.get("tokenizer.ggml.add_space_prefix", not gemma))
    decoding: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if gemma:
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        scheme = "first" if ahead else "never"
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
        if ahead:
            decoding.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(decoding)
    return backend


def _merges(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """The pairs that SentencePiece would join, best first: each way to make a token of two others."""
    plain = {token: index for index, token in enumerate(tokens) if kinds[index] not in (CONTROL,)}
    found = [
        (-scores[index], cut, len(token) - cut, plain[token[:cut]], plain[token[cut:]], token)
        for token, index in plain.items()
        for cut in range(1, len(token))
        if token[:cut] in plain and token[cut:] in plain
    ]
    found.sort(key=lambda one: (one[0], -one[1], -one[2], one[3], one[4]))
    return [(token[:cut], token[cut:]) for _, cut, _, _, _, token in found]


def _add_whole_tokens(
    backend: tokenizers.Tokenizer, metadata: Mapping[str, Any], tokens: Sequence[str]
) -> None:
    """Special tokens, and those that a text never splits."""
    kinds = metadata.get("tokenizer.ggml.token_type") or ()
    pairs = list(zip(tokens, kinds, strict=False))
    special = [token for token, kind in pairs if kind == CONTROL]
    whole = [
        token for token, kind in pairs if kind == USER_DEFINED and backend.token_to_id(token) is not None
    ]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    in_vocabulary = [token for token in whole if backend.token_to_id(token) is not None]
    backend.add_tokens([AddedToken(token, normalized=False) for token in in_vocabulary])


def _spelled(backend: tokenizers.Tokenizer, index: int) -> str | None:
    token: str | None = backend.id_to_token(index)
    return token


_KINDS = {"gpt2": _byte_level, "llama": _sentence_piece}
