"""What a process of its own measures: ways of splitting that need a process group, ``python -m ...``.

torch's fake process group stands for the other processes, which would add nothing to the memory of this one.
It has no threads. Gloo's now and then are the last to hold a tensor, and the profiler hears of this one only.
"""

# Annotations stay objects here: DDP reads those of `exchanged`.
import gc
import json
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from llm.optimizers.adamw import adamw
from llm.parallelism.base import Engine, data_mesh
from llm.parallelism.ddp import DDP
from llm.parallelism.fairscale import FairscaleOSS
from llm.parallelism.fsdp2 import FSDP2
from tests.models.composition import load_model
from tests.planning.measured import step_peak

PRESET, SIZES = "llama", {"d_model": 64, "n_layers": 5, "n_heads": 4, "n_kv_heads": 2}
WORLD, VOCAB, MICRO_BATCH = 4, 500, 4
CASES: list[tuple[Any, ...]] = [
    ("ddp", "float32", 2, 4),
    ("fsdp2", "bfloat16", 2, 48),
    ("fsdp2", "float32", 1, 4),
    ("fairscale_oss", "float32", 1, 4),
    ("fairscale_oss", "bfloat16", 2, 48),
]
"""Way of splitting, precision, micro-batches, tokens of a sequence (few of them: weights are what counts)."""


def exchanged(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The fake group returns no future of a tensor, and DDP asks for one."""
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def ddp(*arguments: Any, **options: Any) -> Engine:
    engine = DDP().prepare(*arguments, **options)
    engine.wrapped.register_comm_hook(None, exchanged)
    return engine


PREPARE = {"ddp": ddp, "fsdp2": FSDP2().prepare, "fairscale_oss": FairscaleOSS().prepare}


def measure(case: tuple[Any, ...]) -> int:
    kind, dtype, n_micro, seq_len = case
    dist.init_process_group("fake", rank=0, world_size=WORLD, store=FakeStore())
    try:
        return step_peak(
            load_model(PRESET, **SIZES), adamw, dtype=dtype, vocab_size=VOCAB, micro_batch=MICRO_BATCH,
            seq_len=seq_len, n_micro=n_micro, mesh=data_mesh(), prepare=PREPARE[kind],
        )  # fmt: skip
    finally:
        dist.destroy_process_group()
        gc.collect()  # what DDP leaves in circles must not be freed in the next record


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([measure(case) for case in CASES]))
