"""The attention that all our forward passes use: torch's own kernels, with windows and soft caps where a layer has them.

Registered with transformers under the name ATTENTION. transformers' "sdpa" drops a layer's soft cap in silence, and repeats shared keys and
values where there is a mask. Does not know caches or models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_grouped"
_SCORES = 1 << 26  # scores in memory at a time where no kernel computes them: 256 MB in float32


def grouped_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """SDPA in which one new token reads shared key-value heads without copying them.

    Transformers' version repeats keys and values for every query head of a group where there is a mask, which copies the whole cache at
    every step. A single query position leaves the position axis free, so the heads of a group take its place.

    A mask of one query position may be that of a layer without a window: the layer's own window is applied to it.

    Shapes: query (batch, heads, positions, size); key and value (batch, key-value heads, length, size); attention_mask, bool, (batch or 1,
    1, positions, length), None for causal attention.
    """
    groups = query.shape[1] // key.shape[1]
    window, softcap, scaling = kwargs.get("sliding_window"), kwargs.get("softcap"), kwargs.get("scaling")
    if window and attention_mask is not None and query.shape[2] == 1:
        attention_mask = _within_window(attention_mask, window)
    if softcap is not None:
        assert scaling is not None  # every layer with a soft cap has a scale of its own
        return _softcapped(query, key, value, attention_mask, scaling, softcap), None
    if query.shape[2] != 1 or groups == 1:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return result
    batch, heads, _, size = query.shape
    folded = query.view(batch, heads // groups, groups, size)
    out = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(batch, 1, heads, out.shape[-1]), None


AttentionInterface.register(ATTENTION, grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _within_window(mask: torch.Tensor, window: int) -> torch.Tensor:
    """The last `window` of the positions that a mask of one query position shows, which are a row without gaps that ends at the query."""
    first_hidden = mask.shape[-1] - mask.flip(-1).long().argmax(-1, keepdim=True)
    return mask & (torch.arange(mask.shape[-1], device=mask.device) >= first_hidden - window)


def _softcapped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float, softcap: float
) -> torch.Tensor:
    """Attention whose scores are softcap * tanh(score / softcap), for some query positions at a time; (batch, positions, heads, size)."""
    groups, (batch, heads, count, _), length = query.shape[1] // key.shape[1], query.shape, key.shape[2]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    positions = torch.arange(length, device=query.device)

    def attend(part: torch.Tensor, start: int) -> torch.Tensor:
        own = slice(start, start + part.shape[2])
        seen = positions[None] <= positions[length - count :][own, None] if mask is None else mask[:, :, own, :length]
        scores = torch.tanh(part @ key.mT * scaling / softcap) * softcap
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        return scores.softmax(-1, dtype=torch.float32).to(part.dtype) @ value

    step = max(1, _SCORES // (batch * heads * length))
    # Computed again in the backward pass: the scores of all positions together would be the largest tensors of all.
    again = torch.is_grad_enabled() and query.requires_grad and count > step
    pieces = [
        checkpoint(attend, query[:, :, start : start + step], start, use_reentrant=False)
        if again
        else attend(query[:, :, start : start + step], start)
        for start in range(0, count, step)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous()
