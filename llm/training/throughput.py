"""How fast training goes, and how much of the device's arithmetic it uses."""

from __future__ import annotations

import functools

import torch

PEAK_BF16_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bfloat16 FLOP/s by a part of the device's name, from its maker's data sheet (SXM parts)."""


@functools.cache
def peak_flops(device: torch.device) -> float | None:
    """The device's dense bfloat16 peak in FLOP/s; None when it is not known (a CPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_BF16_FLOPS.items() if part in name), None)


def mfu(
    tokens_per_second: float, flops_per_token: float | None, peak: float | None, n_devices: int
) -> float | None:
    """Model FLOPs utilisation (PaLM, Chowdhery et al. 2022, appendix B), between 0 and 1; None if unknown."""
    if flops_per_token is None or peak is None:
        return None
    return tokens_per_second * flops_per_token / (peak * n_devices)
