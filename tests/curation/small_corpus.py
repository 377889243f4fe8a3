"""A small corpus on disk with everything in it that a curation acts on."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = ["the", "of", "and", "to", "in", "that", "have", "with", "be", "a", "for", "on", "as", "at", "by"]
WORDS += [f"word{n}" for n in range(60)]


def paragraph(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(55, 85))) + "."


def write(folder: Path, n_documents: int = 240, seed: int = 0) -> Path:
    """Files of JSON lines with copies, short texts and two domains."""
    rng = random.Random(seed)
    texts = [paragraph(rng) for _ in range(n_documents)]
    texts += texts[: n_documents // 10] + ["too short"] * (n_documents // 20)
    rng.shuffle(texts)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        rows = [{"text": text, "kind": rng.choice(["a", "b"])} for text in texts[number::3]]
        (folder / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder
