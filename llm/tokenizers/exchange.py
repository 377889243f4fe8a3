"""A tokenizer's files as transformers writes and reads them.

``tokenizer.json`` is the `tokenizers` library's own form; ``tokenizer_config.json`` names the special tokens
and carries the chat template; ``special_tokens_map.json`` repeats the names for older readers; and
``generation_config.json`` says at which ids an answer ends. All of it is JSON and nothing in it can run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm import files
from llm.tokenizers.base import VOCABULARY_FILE, read_json
from llm.types import ConfigError

CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"
GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def write_pretrained(
    folder: Path, vocabulary: str, config: Mapping[str, Any], *, stop_ids: Sequence[int] = ()
) -> None:
    """Writes a tokenizer for ``transformers.AutoTokenizer.from_pretrained``; each file whole or not at all.

    Args:
        folder: the directory, which is made.
        vocabulary: the content of ``tokenizer.json``.
        config: the content of ``tokenizer_config.json``; ``chat_template`` may be one of its keys.
        stop_ids: ids at which an answer ends; none when unknown.
    """
    names = {key: config[key] for key in NAMED if config.get(key) is not None}
    if extra := config.get("additional_special_tokens"):
        names["additional_special_tokens"] = extra
    files.write_text(folder / VOCABULARY_FILE, vocabulary)
    complete = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    files.write_json(folder / CONFIG_FILE, dict(sorted(complete.items())))
    files.write_json(folder / MAP_FILE, names)
    if stop_ids:
        present = read_json(folder / GENERATION_FILE) if (folder / GENERATION_FILE).is_file() else {}
        files.write_json(folder / GENERATION_FILE, {**present, "eos_token_id": list(stop_ids)})
    # A template left by another tokenizer would win over the one in the config.
    (folder / TEMPLATE_FILE).unlink(missing_ok=True)


def described(special_tokens: Sequence[str], eos_token: str | None, template: str | None) -> dict[str, Any]:
    """A ``tokenizer_config.json`` for a tokenizer that was trained here."""
    config: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    if eos_token is not None:
        config |= {"eos_token": eos_token, "pad_token": eos_token}
    if extra := [name for name in special_tokens if name != eos_token]:
        config["additional_special_tokens"] = extra
    if template is not None:
        config["chat_template"] = template
    return config


def read_pretrained(folder: Path) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The content of ``tokenizer_config.json``, completed from the files around it, and the stop ids.

    Special tokens come out as their text, the chat template as one text under ``chat_template``.

    Raises:
        ConfigError: for ``tokenizer``, when a file is damaged.
    """
    about = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    names = read_json(folder / MAP_FILE) if (folder / MAP_FILE).is_file() else {}
    config = {key: value for key, value in {**names, **about}.items() if key != "auto_map"}
    for key in NAMED:
        config[key] = _text_of(config.get(key))
    template = config.get("chat_template")
    if (folder / TEMPLATE_FILE).is_file():
        template = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise ConfigError("tokenizer", folder, f"the chat_template in its {CONFIG_FILE} is not text")
    config["chat_template"] = template
    generation = read_json(folder / GENERATION_FILE) if (folder / GENERATION_FILE).is_file() else {}
    stop = generation.get("eos_token_id")
    stop = [stop] if isinstance(stop, int) else stop or []
    return config, tuple(one for one in stop if isinstance(one, int))


def _text_of(token: Any) -> str | None:
    """A special token's text; older files hold an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary.

    Printable Latin-1 characters stand for themselves, the other bytes for the characters from U+0100 on, in
    order (Radford et al. 2019, in the released code).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def compact(vocabulary: Mapping[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":"))
