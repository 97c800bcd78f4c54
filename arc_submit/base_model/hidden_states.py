"""Hidden states of a causal language model from one position on: the last layer is computed for these positions alone.

Fine-tuning on answers needs logits at the answer's positions only. Every layer but the last needs all positions, since later layers read
them. In the last layer the other positions serve as keys and values, and their queries, attention and MLP have no effect. Models of the
blocks that Llama, Qwen2 and Qwen3 share, without windows, are supported; any other model computes all positions. Does not know losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

_BLOCKS = {"LlamaDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}


def hidden_states_from(model: Any, ids: torch.Tensor, first: int) -> torch.Tensor:
    """Hidden states after the last norm, (rows, length - first, width), with gradients.

    Args:
        model: a transformers causal language model.
        ids: int64, (rows, length), padded on the right if at all: no mask is used, attention is causal.
        first: the first position of the result.
    """
    decoder = model.get_decoder()
    blocks = getattr(decoder, "layers", ())
    known = all(type(block).__name__ in _BLOCKS and getattr(block.self_attn, "sliding_window", None) is None for block in blocks)
    # The last layer then needs a mask in place of the faster causal kernel, which pays only where many positions are left out.
    if not blocks or not known or first < ids.shape[1] // 4:
        states: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, first:]
        return states
    last = decoder.layers[-1]
    x = decoder.embed_tokens(ids)
    rotation = decoder.rotary_emb(x, torch.arange(ids.shape[1], device=ids.device)[None])
    for layer in decoder.layers[:-1]:
        x = layer(x, attention_mask=None, position_embeddings=rotation, use_cache=False)
    states = decoder.norm(_last_block(last, x, first, *rotation))
    return states


def _last_block(layer: Any, x: torch.Tensor, first: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The block's output at the positions from `first` on; x of shape (rows, length, width)."""
    attention = layer.self_attn
    rows, length, _ = x.shape
    normed = layer.input_layernorm(x)

    def heads(states: torch.Tensor) -> torch.Tensor:
        return states.view(rows, states.shape[1], -1, attention.head_dim).transpose(1, 2)

    query, key, value = heads(attention.q_proj(normed[:, first:])), heads(attention.k_proj(normed)), heads(attention.v_proj(normed))
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = _rotate(query, cos[:, first:], sin[:, first:]), _rotate(key, cos, sin)
    groups = query.shape[1] // key.shape[1]
    # Repeated, because with a mask no fast kernel takes shared keys and values.
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    positions = torch.arange(length, device=x.device)
    mask = positions[None] <= positions[first:, None]
    attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attention.scaling)
    x = x[:, first:] + attention.o_proj(attended.transpose(1, 2).reshape(rows, length - first, -1))
    out: torch.Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
    return out


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (rows, heads, positions, size); cos and sin of shape (1, positions, size)."""
    left, right = states.chunk(2, dim=-1)
    return states * cos[:, None] + torch.cat([-right, left], dim=-1) * sin[:, None]
