"""What a model is saved as."""

from __future__ import annotations

from torch import Tensor, nn


def persistent(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint of `model` holds, by name: each parameter once (a tied one too), saved buffers."""
    saved = model.state_dict(keep_vars=True)
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    return tensors | {name: buffer for name, buffer in model.named_buffers() if name in saved}
