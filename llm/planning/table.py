"""A plan as people read it on a terminal, and as programs do."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from llm.planning.plan import Plan

YEAR_SECONDS = 365.25 * 24 * 3600


def tables(plan: Plan) -> list[Table | str]:
    """Parameters and work by part, memory by what it is for, time and energy; and what would make it fit."""
    shown: list[Table | str] = [_parameters(plan), _memory(plan), _training(plan)]
    if not plan.fits:
        short = plan.peak_bytes - plan.capacity
        line = f"It does not fit: {size(short)} too much on each device."
        if plan.changes:
            line += " Any one of these would do: " + "; ".join(plan.changes)
        else:
            line += " Nothing small would help: a smaller model or shorter sequences."
        shown.append(line)
    return shown


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD,
        show_header=any(columns), pad_edge=False,
    )  # fmt: skip
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and (column or number == 1) else "left")
    return table


def _parameters(plan: Plan) -> Table:
    table = _table("Model", "part", "parameters", "active a token", "forward FLOPs a token")
    for name, part in plan.parts.items():
        table.add_row(name, f"{part.parameters:,}", f"{part.active:,}", f"{part.flops:,.0f}")
    table.add_section()
    forward = f"{plan.flops_per_token / 3:,.0f}"
    table.add_row("total", f"{plan.n_params:,}", f"{plan.active_params:,}", forward)
    return table


def _memory(plan: Plan) -> Table:
    training = plan.training
    share = f"micro-batches of {training.micro_batch} x {training.seq_len} tokens"
    table = _table(f"Memory of one device ({share})", "for", "bytes", "")
    for name, held in plan.memory.parts().items():
        if held:
            table.add_row(name, size(held), f"{held:,}")
    table.add_section()
    table.add_row(f"most in a step ({plan.memory.at})", size(plan.memory.total), f"{plan.memory.total:,}")
    table.add_row("most in an evaluation", size(plan.memory.evaluation), f"{plan.memory.evaluation:,}")
    left = plan.capacity - plan.peak_bytes
    table.add_row("the device has", size(plan.capacity), "fits" if plan.fits else "DOES NOT FIT")
    table.add_row("left" if left >= 0 else "too much", size(abs(left)), f"{abs(left) / plan.capacity:.1%}")
    table.caption = "No activation checkpointing here. The runtime's own memory is not counted."
    table.caption_justify = "left"
    return table


def _training(plan: Plan) -> Table:
    training, device = plan.training, plan.device
    table = _table(f"Training on {training.n_devices} x {device.label}", "", "", "")
    tokens = f"{training.max_steps:,} steps of {training.batch_size} x {training.seq_len}"
    tokens += ", and as many of the source" if plan.tokens > training.tokens else ""
    table.add_row("tokens", f"{plan.tokens:,}", tokens)
    table.add_row("FLOPs a token", f"{plan.flops_per_token:,.0f}", "forward and backward")
    table.add_row("FLOPs", f"{plan.flops:.4g}", "")
    table.add_row("peak FLOP/s a device", f"{plan.peak_flops:.4g}", device.source)
    table.add_row("utilisation", f"{plan.utilisation:.0%}", "utilisation=N for another")
    table.add_row("time", duration(plan.seconds), "evaluations left out")
    joules = plan.joules
    if joules is None:
        table.add_row("energy", "unknown", "no power figure: device.watts=N")
    else:
        table.add_row("energy", f"{joules / 3.6e6:,.4g} kWh", f"{device.watts:g} W a device")
    table.add_section()
    table.add_row("KV cache a token", size(plan.cache.per_token), "of one sequence, all layers")
    full = f"of {training.seq_len} tokens"
    if plan.cache.taken != plan.cache.needed:
        full += f"; {size(plan.cache.taken)} as it is stored"
    table.add_row("KV cache a sequence", size(plan.cache.needed), full)
    table.add_row(
        "decoding at most", f"{plan.decode_tokens_per_second:,.4g} tokens/s", "one sequence, one device"
    )
    return table


def size(value: float) -> str:
    """``1.50 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:,.0f} B" if unit == "B" else f"{value:,.2f} {unit}"
        value /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """``4.2 s``, ``12 min``, ``3.5 h``, ``2.1 days``, ``4 years``."""
    for length, unit in ((YEAR_SECONDS, "years"), (86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def as_json(plan: Plan) -> dict[str, Any]:
    """All figures under plain names; ``summary`` is what a run's result says."""
    training = plan.training
    summary = {
        "active_params": plan.active_params,
        "flops_per_token": plan.flops_per_token,
        "flops": plan.flops,
        "training_tokens": plan.tokens,
        "memory_bytes": plan.memory.total,
        "evaluation_bytes": plan.memory.evaluation,
        "device_bytes": plan.capacity,
        "fits": plan.fits,
        "kv_cache_bytes_per_token": plan.cache.per_token,
        "kv_cache_bytes": plan.cache.needed,
        "train_seconds": plan.seconds,
        "train_kwh": None if plan.joules is None else plan.joules / 3.6e6,
        "utilisation": plan.utilisation,
        "peak_flops": plan.peak_flops,
    }
    return {
        "summary": summary,
        "parameters": {
            name: {"parameters": part.parameters, "active": part.active, "forward_flops": part.flops}
            for name, part in plan.parts.items()
        },
        "memory": {
            **{name: {"bytes": held} for name, held in plan.memory.parts().items()},
            "at": plan.memory.at,
        },
        "n_params": plan.n_params,
        "training": vars(training) | {"micro_batch": training.micro_batch},
        "device": {"label": plan.device.label, "watts": plan.device.watts, "source": plan.device.source},
        "decode_tokens_per_second": plan.decode_tokens_per_second,
        "changes": plan.changes,
    }
