"""The layers of a LoRA inside a model that is trained: a linear layer or the embedding with two low-rank factors, and their gradients.

The factors are views of the adapter's flat tensor, and the backward passes add to views of its gradient. PEFT's own layers are not used:
they need three products and two additions where one product suffices (see `_MergedLinear`). Does not know models, files or settings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class LoraLinear(nn.Module):
    """A frozen linear layer with low-rank factors.

    Attributes:
        base: the layer itself.
        down: the first factor (PEFT's A), (rank, inputs).
        up: the second factor (PEFT's B), (outputs, rank).
        magnitude: for DoRA, the learned norm of each row of the weight, (outputs,). All three are views of the adapter's flat tensor.
        gradients: views of the same parts of its gradient; the backward pass adds to them itself.
        initial_factors: for PiSSA and OLoRA, down and up at the start; their product is subtracted.
        merged: (outputs, inputs), the effective weight, computed again when the flat tensor has changed; None where it is not stored.
    """

    def __init__(self, base: nn.Linear, scaling: float, flat: nn.Parameter, views: list[torch.Tensor], gradients: list[torch.Tensor]):
        super().__init__()
        self.base = base
        self.scaling = scaling
        self.flat = [flat]  # in a list, so that it is not registered as a parameter of the model
        self.down, self.up = views[:2]
        self.magnitude = views[2] if len(views) > 2 else None
        self.gradients = gradients
        self.initial_factors: tuple[torch.Tensor, torch.Tensor] | None = None
        self.merged: torch.Tensor | None = None
        self.row_scale: torch.Tensor | None = None  # DoRA's magnitude / norm of each row, of the stored effective weight
        self.version = -1  # of the flat tensor in the stored effective weight
        self.in_features, self.out_features = base.in_features, base.out_features

    @property
    def weight(self) -> torch.Tensor:
        """The base's, as that of a linear layer."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x of shape (rows, length, inputs)."""
        # Autocast would round the effective weight to 16 bits, in which the low-rank change is lost.
        if self.merged is None or torch.is_autocast_enabled(x.device.type):
            return self._unmerged(x)
        if self.version != self.flat[0]._version:
            self._merge(self.merged)
        # The flat tensor is an argument so that autograd calls the backward pass; its gradient is added there, and None is returned.
        merged: torch.Tensor = _MergedLinear.apply(x, self.flat[0], self)  # type: ignore[no-untyped-call]
        return merged

    @torch.no_grad()
    def _merge(self, merged: torch.Tensor) -> None:
        """Compute the effective weight: base + scaling * up @ down, and DoRA's rescaled rows."""
        torch.addmm(self.base.weight, self.up, self.down, alpha=self.scaling, out=merged)
        if self.initial_factors is not None:
            merged.sub_(self.initial_factors[1] @ self.initial_factors[0], alpha=self.scaling)
        if self.magnitude is not None:
            self.row_scale = self.magnitude / merged.norm(dim=1)
            merged.mul_(self.row_scale[:, None])
        self.version = self.flat[0]._version

    def _unmerged(self, x: torch.Tensor) -> torch.Tensor:
        """The base layer and the two low-rank products apart: for weights in 16 or 4 bits, in which the low-rank change would be lost."""
        out: torch.Tensor = self.base(x)
        change: torch.Tensor = _LowRank.apply(x.to(out.dtype), self.flat[0], self)  # type: ignore[no-untyped-call]
        if self.initial_factors is not None:
            initial_down, initial_up = (factor.to(out.dtype) for factor in self.initial_factors)
            change = change - (x.to(out.dtype) @ initial_down.mT) @ initial_up.mT * self.scaling
        if self.magnitude is None:
            return out + change
        with torch.no_grad():  # as in the paper, the norm is a constant in the backward pass
            norm = torch.addmm(self.base.weight.float(), self.up, self.down, alpha=self.scaling).norm(dim=1)
        bias = torch.zeros_like(out[..., :1]) if self.base.bias is None else self.base.bias
        scaled: torch.Tensor = _ScaledRows.apply(out - bias + change, self.flat[0], norm, self)  # type: ignore[no-untyped-call]
        return scaled + bias


class LoraEmbedding(nn.Module):
    """A frozen embedding with low-rank factors.

    Attributes:
        base: the embedding itself.
        scaling: of the change, with the embedding's own scale (Gemma 3) where it has one.
        down: a column for each token (PEFT's embedding A), (rank, tokens). The padding's is not learnt, as in PEFT.
        up: the second factor (PEFT's embedding B), (width, rank). Both are views of the adapter's flat tensor.
        gradients: views of the same parts of its gradient; the backward pass adds to them itself.
    """

    # As in a linear layer; an embedding has neither.
    magnitude: torch.Tensor | None = None
    initial_factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def __init__(self, base: nn.Embedding, scaling: float, flat: nn.Parameter, views: list[torch.Tensor], gradients: list[torch.Tensor]):
        super().__init__()
        self.base = base
        self.scaling = scaling * float(getattr(base, "embed_scale", 1.0))
        self.flat = [flat]  # in a list, so that it is not registered as a parameter of the model
        self.down, self.up = views
        self.gradients = gradients

    @property
    def weight(self) -> torch.Tensor:
        """The base's, as that of an embedding."""
        return self.base.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids of any shape."""
        out: torch.Tensor = self.base(ids)
        change: torch.Tensor = _LowRankRows.apply(ids, self.flat[0], out.dtype, self)  # type: ignore[no-untyped-call]
        return out + change


class _LowRankRows(torch.autograd.Function):
    """scaling * up @ down's columns of some tokens, in a dtype, with float32 gradients of the factors."""

    @staticmethod
    def forward(ctx: Any, ids: torch.Tensor, flat: torch.Tensor, dtype: torch.dtype, layer: LoraEmbedding) -> torch.Tensor:
        low, up = layer.down[:, ids.flatten()].to(dtype).mT, layer.up.to(dtype)
        ctx.save_for_backward(ids, low, up)
        ctx.layer = layer
        return (low @ up.mT).to(dtype).mul_(layer.scaling).view(*ids.shape, len(up))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, ...]:
        ids, low, up = ctx.saved_tensors
        layer: LoraEmbedding = ctx.layer
        flat_grad, padding = grad.reshape(-1, len(up)), layer.base.padding_idx
        layer.gradients[1].add_((flat_grad.mT @ low).float(), alpha=layer.scaling)
        # torch's gradient of an embedding sums the positions of a token in a fixed order, unlike index_add_ on a GPU.
        columns = torch.ops.aten.embedding_dense_backward(
            (flat_grad @ up).float(), ids.flatten(), layer.down.shape[1], -1 if padding is None else padding, False
        )
        layer.gradients[0].add_(columns.mT, alpha=layer.scaling)
        return None, None, None, None


class _MergedLinear(torch.autograd.Function):
    """The layer as one product with the effective weight, and gradients of the factors alone.

    Computed apart, x W + (x A) B takes two more thin products, three more in the backward pass, and a sum for each of them. With the
    effective weight W + A B stored, the forward pass and the gradient of x are one product each. The factors' gradients follow from two
    thin products each, or from the weight's gradient where that is cheaper. The product adds them to the flat gradient itself.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        merged, bias = layer.merged, layer.base.bias
        assert merged is not None
        ctx.save_for_backward(x, merged)
        ctx.layer = layer
        return nn.functional.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, merged = ctx.saved_tensors
        layer: LoraLinear = ctx.layer
        rank, (outputs, inputs) = len(layer.down), merged.shape
        flat_grad, flat_x = grad.reshape(-1, outputs), x.reshape(-1, inputs)
        grad_x = (flat_grad @ merged).view(x.shape) if ctx.needs_input_grad[0] else None
        # For each position the thin products cost 2 * rank * (inputs + outputs), the weight's gradient inputs * outputs.
        if layer.magnitude is None and inputs * outputs > 2 * rank * (inputs + outputs):
            _add_gradients(layer, flat_grad, flat_x, layer.down, layer.up)
            return grad_x, None, None
        grad_weight = flat_grad.mT @ flat_x
        if layer.magnitude is not None and layer.row_scale is not None:
            # merged = magnitude * unit row: the gradient along the row is the magnitude's, and the chain rule scales that of the rows.
            layer.gradients[2].add_((grad_weight * merged).sum(1) / layer.magnitude)
            grad_weight *= layer.row_scale[:, None]
        layer.gradients[0].addmm_(layer.up.mT, grad_weight, alpha=layer.scaling)
        layer.gradients[1].addmm_(grad_weight, layer.down.mT, alpha=layer.scaling)
        return grad_x, None, None


class _LowRank(torch.autograd.Function):
    """scaling * up @ down @ x in the dtype of x, with float32 gradients of the factors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        down, up = layer.down.to(x.dtype), layer.up.to(x.dtype)
        ctx.save_for_backward(x, down, up)
        ctx.layer = layer
        out = ((x.reshape(-1, x.shape[-1]) @ down.mT) @ up.mT).mul_(layer.scaling)
        return out.view(*x.shape[:-1], len(up))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, down, up = ctx.saved_tensors
        grad_low = _add_gradients(ctx.layer, grad.reshape(-1, len(up)), x.reshape(-1, x.shape[-1]), down, up)
        grad_x = (grad_low @ down).mul_(ctx.layer.scaling).view(x.shape) if ctx.needs_input_grad[0] else None
        return grad_x, None, None


class _ScaledRows(torch.autograd.Function):
    """DoRA's last part: outputs times magnitude / norm, with the gradient of the magnitude."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, flat: torch.Tensor, norm: torch.Tensor, layer: LoraLinear) -> torch.Tensor:
        assert layer.magnitude is not None
        scale = layer.magnitude / norm
        ctx.save_for_backward(x, norm, scale)
        ctx.layer = layer
        return x * scale.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, norm, scale = ctx.saved_tensors
        ctx.layer.gradients[2].add_((grad.float() * x.float()).view(-1, len(norm)).sum(0) / norm)
        return grad * scale.to(grad.dtype), None, None, None


def _add_gradients(layer: LoraLinear, grad: torch.Tensor, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Add both factors' gradients; `grad` and `x` are of shape (positions, width). Returns grad @ up, (positions, rank)."""
    grad_low = grad @ up
    if grad.dtype == torch.float32:
        layer.gradients[0].addmm_(grad_low.mT, x, alpha=layer.scaling)
        layer.gradients[1].addmm_(grad.mT, x @ down.mT, alpha=layer.scaling)
    else:  # products in 16 bits cannot add to float32 themselves
        layer.gradients[0].add_(grad_low.mT @ x, alpha=layer.scaling)
        layer.gradients[1].add_(grad.mT @ (x @ down.mT), alpha=layer.scaling)
    return grad_low
