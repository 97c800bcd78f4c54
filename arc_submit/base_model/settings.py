"""The shape of an adapter, as data that needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from arc_submit.errors import ConfigError
from arc_submit.options import Identity, check_options, option

INITS = ("default", "gaussian", "pissa", "olora")
DTYPES = ("auto", "float32", "float16", "bfloat16")
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
        _LAYERS,
        help="last parts of the names of the linear layers to adapt; embed_tokens, the embeddings, may be among them",
        identity=Identity.SAME,
        commands=_COMMANDS,
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

    embedding_learning_rate: float | None = option(
        None,
        help="peak learning rate of embed_tokens and lm_head (default: that of the other layers)",
        identity=Identity.SAME,
        when=lambda settings: settings.embedding_learning_rate is not None,
        above=0,
        below=1,
        commands=_COMMANDS,
    )

    dtype: str = option(
        "auto",
        help="dtype of the factors in the files of fine-tuned adapters; auto takes the base's. They are trained in float32",
        identity=Identity.SAME,
        when=lambda settings: settings.dtype != "auto",
        choices=DTYPES,
        commands=("run", "finetune"),
    )

    def __post_init__(self) -> None:
        check_options(self, "lora_")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"--lora-targets {','.join(self.targets) or 'none'}: name each linear layer once")
        if "embed_tokens" in self.targets and (self.dora or self.init in ("pissa", "olora")):
            other = "--lora-dora" if self.dora else f"--lora-init {self.init}"
            raise ConfigError(f"--lora-targets embed_tokens with {other}: it is defined for linear layers; leave one of the two out")
        if self.dora and self.init in ("pissa", "olora"):
            raise ConfigError(f"--lora-init {self.init} with --lora-dora: a difference to first values is no DoRA adapter; choose one")

    @property
    def at_the_ends(self) -> tuple[str, ...]:
        """The targets that vllm does not serve."""
        return tuple(name for name in self.targets if name in ("embed_tokens", "lm_head"))

    @property
    def file_rank(self) -> int:
        """The rank of the adapter's file: pissa and olora are saved as a difference of twice the rank."""
        return 2 * self.rank if self.init in ("pissa", "olora") else self.rank

    @property
    def scaling(self) -> float:
        """The scale of the product of the two factors."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
