"""The number format of the forward and backward pass; weights and optimizer stay in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch


class Precision:
    """float32, or bfloat16 mixed precision (Micikevicius et al. 2018, arXiv 1710.03740, without loss scaling:
    bfloat16 has float32's range).
    """

    def __init__(self, *, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
        self.dtype: torch.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]

    @property
    def mixed(self) -> bool:
        """True when arithmetic is narrower than the weights."""
        return self.dtype != torch.float32

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Runs the operations inside it in this precision where that is safe."""
        return torch.autocast(device.type, self.dtype) if self.mixed else nullcontext()
