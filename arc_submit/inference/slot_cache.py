"""Keys and values of a fixed number of sequences that are decoded side by side, each at its own position.

Layout: every layer has one tensor of keys and one of values, shape (slots, key-value heads, length, head size). A row is a slot. A decoding
step writes one position in every row and attends to the first positions of all rows, as a view: nothing is copied or padded.
Transformers' own caches assume one common position for all rows, which needs left padding and a batch that ends as a whole. Does not know
models or requests.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

# The CPU's attention kernel sums over blocks of this many positions. The attended length is a multiple of it: another request's length can
# then only add whole masked blocks, which contribute exact zeros. A partial block would be summed in another order, and a slot's result
# would depend, in its last bits, on its neighbours.
_BLOCK = 512


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers' types are not followed
    """One layer's part of the cache; transformers' attention calls `update` with the new token of every slot."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor):
        super().__init__()
        self.keys, self.values, self.positions = keys, values, positions
        self.rows = torch.arange(keys.shape[0], device=keys.device)
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the tensors exist from the start."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[self.rows, :, self.positions] = key_states[:, :, 0]
        self.values[self.rows, :, self.positions] = value_states[:, :, 0]
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


class SlotCache:
    """The cache of all layers.

    Every slot takes part in every step, so that the shapes of all matrix products are constant. A slot without a request is written at
    position 0, which its next prompt overwrites.
    """

    def __init__(self, slots: int, device: torch.device):
        self._slots = slots
        self._positions = torch.zeros(slots, dtype=torch.long, device=device)  # shared with the layers, changed in place
        self._layers: list[_SlotLayer] = []

    def fill(self, slot: int, prompt: Cache, prompt_length: int, max_new_tokens: int) -> None:
        """Copy the cache of a prompt (one row) into a slot, with space for the tokens to generate."""
        self._reserve(prompt_length + max_new_tokens, prompt)
        for layer, read in zip(self._layers, prompt.layers, strict=True):
            # A former request's tokens may remain behind the prompt: the mask of `attend` hides them until they are overwritten.
            layer.keys[slot, :, :prompt_length] = read.keys[0]
            layer.values[slot, :, :prompt_length] = read.values[0]

    def _reserve(self, length: int, like: Cache) -> None:
        """Extend all slots to a length and preserve their content; the shapes of heads are those of `like`."""
        old = self._layers[0].get_max_length() if self._layers else 0
        if length <= old:
            return
        new = _round_up(length)
        for i, read in enumerate(like.layers):
            keys, values = (
                torch.zeros(self._slots, one.shape[1], new, one.shape[3], dtype=one.dtype, device=self._positions.device)
                for one in (read.keys, read.values)
            )
            if old:
                layer = self._layers[i]
                keys[:, :, :old], values[:, :, :old] = layer.keys, layer.values
                layer.keys, layer.values = keys, values
            else:
                self._layers.append(_SlotLayer(keys, values, self._positions))

    def attend(self, positions: list[int]) -> dict[str, Any]:
        """The arguments of a model's forward pass that reads one token in every slot.

        Args:
            positions: of each slot's token. A slot attends to its own positions up to this one, in layers with a window to the last of
                them (base_model.attention); content behind it is hidden.
        """
        self._positions.copy_(torch.tensor(positions))
        length = _round_up(max(positions) + 1)
        for layer in self._layers:
            layer.length = length
        mask = torch.arange(length, device=self._positions.device)[None, :] <= self._positions[:, None]
        return {
            "attention_mask": mask[:, None, None, :],
            "position_ids": self._positions[:, None],
            "past_key_values": Cache(layers=self._layers),
        }


def _round_up(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK
