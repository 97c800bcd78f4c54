"""The shape of an adapter, as data that needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from arc_submit.errors import ConfigError

INITS = ("default", "gaussian", "pissa", "olora")


@dataclass(frozen=True)
class LoraSettings:
    """One adapter's make.

    Attributes:
        rank: of the two factors.
        alpha: the product is scaled by alpha / rank.
        targets: last parts of the names of the linear layers to adapt.
        rslora: scale by alpha / sqrt(rank) instead, so that a larger rank does not learn more slowly.
        dora: learn every row's length apart from its direction. No engine but transformers can serve it.
        init: "default" and "gaussian" begin at the base model, with a random first factor; "pissa" takes both factors from the weight's
            largest singular values, "olora" from its QR decomposition. These two are kept as a difference to where they began, so
            that the base stays as it is, and are saved with twice the rank.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    rslora: bool = False
    dora: bool = False
    init: str = "default"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"LoRA rank {self.rank}: at least 1 is needed")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"LoRA alpha {self.alpha}: a number above 0 is needed")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"LoRA targets {', '.join(self.targets) or 'none'}: name each linear layer once")
        if set(self.targets) & {"lm_head", "embed_tokens"}:
            raise ConfigError("LoRA targets lm_head and embed_tokens cannot be served by vllm; name layers inside the blocks")
        if self.init not in INITS:
            raise ConfigError(f"LoRA init {self.init}: choose from {', '.join(INITS)}")
        if self.dora and self.init in ("pissa", "olora"):
            raise ConfigError(f"LoRA init {self.init} with DoRA: the difference to its beginning is no DoRA adapter; choose one of the two")

    @property
    def scaling(self) -> float:
        """Factor of the product of the two factors."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
