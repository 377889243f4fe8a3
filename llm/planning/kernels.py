"""A GPU played by the CPU, as far as memory goes: the kernels that differ are exchanged.

Fake tensors may say that they are on a GPU only where torch was built for one. A plan is made anywhere, so
its tensors are on the CPU and what a GPU would do otherwise is done here: which attention kernel runs, and
the fused RMSNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
HALVES = (torch.bfloat16, torch.float16)


class LikeGPU(TorchFunctionMode):
    """Inside it, `F.scaled_dot_product_attention` and `F.rms_norm` keep what they keep on a GPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        if func is Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func is F.rms_norm:
            return _rms_norm(*args, **kwargs)
        return func(*args, **kwargs)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Keeps what torch's choice of kernel keeps: a row of statistics, or all scores (the plain formula).

    The rules are those of torch's ``sdp_utils.cpp``: in half precision flash attention takes heads of one
    width without a mask, cuDNN's with one; the memory-efficient kernel takes any width and float32, but no
    grouped queries. A mask that is learned (T5's) is counted as the plain formula, which takes no less.
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    one_width = query.shape[-1] == key.shape[-1] == value.shape[-1]
    in_half = query.dtype in HALVES
    learned = attn_mask is not None and attn_mask.requires_grad
    if not learned and ((in_half and one_width and query.shape[-1] <= 256) or not enable_gqa):
        fused: Callable[..., tuple[Tensor, Tensor]] = aten._scaled_dot_product_flash_attention_for_cpu
        return fused(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
    plain: Callable[..., tuple[Tensor, Tensor]] = aten._scaled_dot_product_attention_math
    return plain(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    fused: Callable[..., tuple[Tensor, Tensor]] = aten._fused_rms_norm
    return fused(x, list(shape), weight, eps)[0]
