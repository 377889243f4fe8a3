"""What each of two processes does in the distributed tests: ``python -m tests.parallelism.worker FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llm import runtime
from llm.checkpoints.recipe import recipe_of
from llm.data.loader import Loader
from llm.models.adapters.dora import dora
from llm.models.adapters.qlora import qlora
from llm.models.parametrization.base import learning_rates
from llm.models.parametrization.mup import MuP
from llm.optimizers.adamw import adamw
from llm.optimizers.groups import with_rates
from llm.parallelism.base import Engine, Parallelism, State, data_mesh
from llm.parallelism.ddp import DDP
from llm.parallelism.fairscale import FairscaleOSS
from llm.parallelism.fsdp2 import FSDP2
from llm.parallelism.precision import Precision
from llm.parallelism.single import Single
from llm.training.losses import NextToken
from llm.types import Batch, ConfigError
from tests.models.composition import load_model
from tests.training import tiny
from tests.training.test_trainer import At, fit

KINDS: dict[str, Callable[[], Parallelism]] = {"ddp": DDP, "fsdp2": FSDP2, "fairscale_oss": FairscaleOSS}
ADAPTERS = {"dora": dora, "qlora": qlora}
STEPS, HALF = 20, 10
NO_DROPOUT = {"dropout": 0.0}
# Its matrices learn at a quarter of the rate of the rest.
WIDENED = {"parametrization": recipe_of(partial(MuP, base_d_model=8))}
# Learning rate and batch are such that an error in the weighting shows far above 1e-4.
OPTIMIZER = partial(adamw, lr=1e-2, weight_decay=0.1)


def prepare(
    kind: Parallelism,
    seed: int = 0,
    dtype: Any = "float32",
    model: nn.Module | None = None,
    algorithm: Any = None,
    adapter: Callable[[nn.Module], nn.Module] = lambda model: model,
    **changes: Any,
) -> Engine:
    algorithm = algorithm or NextToken()
    policy = adapter(model or tiny.model(seed, **changes))
    return kind.prepare(
        policy,
        with_rates(OPTIMIZER, learning_rates(policy)),
        data_mesh(),
        loss=algorithm.loss,
        precision=Precision(dtype=dtype),
        clip_norm=0.5,
        units=algorithm.units,
    )


def mixture(preset: str, seed: int = 0, **arguments: Any) -> nn.Module:
    """A tiny model with experts; `arguments` are the mixture's."""
    sizes: dict[str, Any] = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 16}
    made = load_model(preset, vocab_size=tiny.VOCAB, max_seq_len=tiny.SEQ_LEN, n_kv_heads=None, **sizes)
    made.keywords["feed_forward"].keywords.update(**arguments)
    model = made()
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def train(engine: Engine, first: int, last: int, n_micro: int = 2) -> list[dict[str, float]]:
    """Steps `first` to `last` of a data set whose rows have very unequal numbers of targets."""
    loader = Loader(tiny.Counting(48, seed=1, mask=0.97), 8, seed=3)
    curve = []
    for step in range(first, last):
        shares = [loader.batch(step, m, n_micro, engine.replica, engine.n_replicas) for m in range(n_micro)]
        curve.append(engine.step(shares, tiny.schedule(step, 40)))
    return curve


def validation() -> list[Batch]:
    """Seven batches: two processes cannot share them equally."""
    rows = tiny.Counting(21, seed=2, mask=0.9)
    return [rows.batch(range(start, start + 3)) for start in range(0, 21, 3)]


def with_experts(kind: Parallelism, n_micro: int) -> dict[str, Any]:
    """A few steps of a model whose experts are balanced both by a loss and by a bias."""
    remedies = {"balance_loss": 0.5, "z_loss": 0.1, "bias_speed": 0.01}
    engine = prepare(kind, model=mixture("deepseek_v3", seed=runtime.rank(), **remedies))
    curve = train(engine, 0, 4, n_micro)
    state = engine.state()["model"]
    return {"curve": curve, "bias": [t.tolist() for n, t in state.items() if n.endswith("selection_bias")]}


def sample(model: nn.Module) -> list[float]:
    """A call of the model outside a step."""
    logits = model(tiny.Counting(2).batch([0, 1]))
    return list(logits.float().mean((0, 1)).tolist())


def adapted(kind: Parallelism, seed: int = 0) -> dict[str, Any]:
    """Training of few weights beside frozen ones, some of them in four bits; the state it leaves."""
    found: dict[str, Any] = {}
    for name, adapter in ADAPTERS.items():
        engine = prepare(kind, seed=seed, adapter=partial(adapter, rank=3, seed=seed))
        losses = [metrics["loss"] for metrics in train(engine, 0, 3)]
        state = engine.state()  # by all processes together
        sums = {n: tensor.double().sum().item() for n, tensor in state["model"].items()}
        found[name] = {"losses": losses, "sums": sums, "held_bytes": held_bytes(engine)}
    return found


def write(state: State, folder: Path) -> None:
    folder.mkdir()
    for part, tensors in state.items():
        save_file(tensors, folder / f"{part}.safetensors")


def read(folder: Path) -> State:
    return {part: load_file(folder / f"{part}.safetensors") for part in ("model", "optimizer")}


def mistake(kind: Parallelism, **changes: Any) -> Sequence[str]:
    try:
        fit(Path(sys.argv[1]) / "mistakes", parallelism=kind, **changes)
    except ConfigError as error:
        return [error.key, str(error)]
    return []


def work(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in KINDS.items():
        # different weights on each process: the first one's must win
        engine = prepare(kind(), seed=runtime.rank(), tie_embeddings=name != "ddp")
        untrained = engine.measure(validation())
        curve = train(engine, 0, STEPS)
        after, sampled = engine.measure(validation()), engine.run(sample)
        state = engine.state()
        if runtime.is_main():
            write(state, folder / name)
        resumed = prepare(kind(), seed=5)
        resumed.load_state(read(folder / "half"))
        found[name] = {
            "curve": curve,
            "untrained": untrained,
            "after": after,
            "sample": sampled,
            "resumed": train(resumed, HALF, STEPS),
            "widened": train(prepare(kind(), **WIDENED), 0, 5),
            "mixed": train(prepare(kind(), dtype="bfloat16"), 0, 3),
            "held_bytes": held_bytes(engine),
            "experts": with_experts(kind(), 2),
            "adapted": adapted(kind(), seed=runtime.rank()),
        }
    found["fit"] = {name: train_whole(folder / f"fit_{name}", kind()) for name, kind in KINDS.items()}
    found["interrupted"] = interrupted(folder / "interrupted")
    found["mistakes"] = {
        "single": mistake(Single()),
        "ddp": mistake(DDP(replicas=3)),
        "fsdp2": mistake(FSDP2(shards=1)),
        "fairscale_oss": mistake(FairscaleOSS(replicas=4)),
        "batch": mistake(DDP(), batch_size=6),
    }
    return found


def train_whole(directory: Path, kind: Parallelism, **changes: Any) -> dict[str, Any]:
    """The trainer over both processes, resumed once."""
    for steps in (2, 4):
        result = fit(
            directory,
            parallelism=kind,
            max_steps=steps,
            resume_from=directory,
            **({"model": NO_DROPOUT} | changes),
        )
    return {"val_loss": result.val_loss, "before": result.val_loss_before, "tokens": result.tokens}


def interrupted(directory: Path) -> str:
    """Only one process gets the signal, and both must stop at the same step."""

    def signalled(state: Any) -> None:
        if runtime.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        fit(directory, parallelism=DDP(), callbacks=[At(3, signalled)])
    except KeyboardInterrupt:
        return str((directory / "checkpoints" / "last").readlink())
    return "not interrupted"


def held_bytes(engine: Engine) -> int:
    """Bytes of optimizer state in this process."""
    optimizer = getattr(engine.optimizer, "optim", engine.optimizer)
    tensors = [value for values in optimizer.state.values() for value in values.values()]
    return sum(getattr(t, "_local_tensor", t).nbytes for t in tensors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with runtime.process_group():
        result = work(Path(sys.argv[1]))
        if runtime.is_main():
            (Path(sys.argv[1]) / "found.json").write_text(json.dumps(result))
