"""The shape of an adapter, as data that needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from arc_submit.errors import ConfigError
from arc_submit.options import Identity, check_options, option

INITS = ("default", "gaussian", "pissa", "olora")
_COMMANDS = ("run", "finetune", "train")
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraSettings:
    """The configuration of a LoRA adapter.

    Sources: rslora arXiv 2312.03732, dora arXiv 2402.09353, init "pissa" arXiv 2404.02948, init "olora" arXiv 2406.01775. The last two are
    applied as a difference to their first values, so that the base is unchanged, and are saved with twice the rank.
    """

    rank: int = option(16, help="rank of the two factors", identity=Identity.SAME, minimum=1, commands=_COMMANDS)
    alpha: float = option(32.0, help="the product is scaled by alpha / rank", identity=Identity.SAME, above=0, commands=_COMMANDS)
    targets: tuple[str, ...] = option(
        _LAYERS, help="last parts of the names of the linear layers to adapt", identity=Identity.SAME, commands=_COMMANDS
    )
    rslora: bool = option(
        False,
        help="scale by alpha / sqrt(rank), so that a larger rank does not learn more slowly",
        identity=Identity.SAME,
        commands=_COMMANDS,
    )
    dora: bool = option(
        False,
        help="learn the length of each row apart from its direction; only the transformers engine serves it",
        identity=Identity.SAME,
        commands=_COMMANDS,
    )
    init: str = option(
        "default",
        help="first values: default and gaussian start at the base; pissa takes the largest singular values, olora a QR decomposition",
        identity=Identity.SAME,
        choices=INITS,
        commands=_COMMANDS,
    )

    def __post_init__(self) -> None:
        check_options(self, "lora_")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"--lora-targets {','.join(self.targets) or 'none'}: name each linear layer once")
        if set(self.targets) & {"lm_head", "embed_tokens"}:
            raise ConfigError("--lora-targets: vllm cannot serve lm_head and embed_tokens; name layers inside the blocks")
        if self.dora and self.init in ("pissa", "olora"):
            raise ConfigError(f"--lora-init {self.init} with --lora-dora: a difference to first values is no DoRA adapter; choose one")

    @property
    def scaling(self) -> float:
        """The scale of the product of the two factors."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
