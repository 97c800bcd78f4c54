"""A model that is divided over the processes of a training (fully sharded data parallel), for models that do not fit one device.

Each process holds an equal part of every weight. Before a layer computes, its weights are gathered from all processes, and freed behind it;
the backward pass gathers them again, and sums and divides their gradients. It is torch's `fully_shard` (FSDP2), in the processes that
accelerate starts. All gatherings are made by all processes together: each takes the same number of passes. Does not know samples or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from arc_submit.errors import ConfigError
from arc_submit.train.distributed import Processes


class ShardedModel(nn.Module):
    """A model's root for its divided weights: what is called inside `forward` finds the weights outside layers whole.

    The loss uses the decoder, the embeddings and the output layer apart, none of which is the model's own forward pass.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(model, *arguments)."""
        return function(self.model, *arguments)


@dataclass(frozen=True)
class Sharding:
    """How a model's weights are divided.

    Attributes:
        root: of the divided model.
        group: the processes that hold the parts.
        weights: the divided weights whose parts are trained; none where all are frozen.
    """

    root: ShardedModel
    group: Processes
    weights: tuple[DTensor, ...] = ()

    def describe(self) -> str:
        """How many values of the model this process holds."""
        weights = [weight for weight in self.root.parameters() if isinstance(weight, DTensor)]
        own = sum(weight.to_local().numel() for weight in weights)
        values = sum(weight.numel() for weight in weights)
        return f"the model is divided over {self.group.world} processes: {own:,} of its {values:,} values here"


def shard_model(model: Any, mesh: DeviceMesh, dtype: torch.dtype | None) -> ShardedModel:
    """Divide a loaded model's weights over the processes, on their devices.

    Args:
        model: in the host's memory, the same in all processes.
        mesh: of the processes.
        dtype: of the gathered weights where they have gradients, which are summed in float32; None leaves them as they are.

    Raises:
        ConfigError: where the model is not made of layers.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ConfigError(f"--fsdp: {type(model).__name__} has no list of layers to divide; leave --fsdp out")
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if dtype else MixedPrecisionPolicy()
    whole = ShardedModel(model)
    for module in (*layers, whole):
        # The root too is freed behind its forward pass: an evaluation must not leave weights that the next step makes old.
        divided: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        # The loss of a step is divided by the tokens of all processes already: gradients are summed, and not averaged.
        divided.set_gradient_divide_factor(1.0)
        divided.set_force_sum_reduction_for_comms(True)
    return whole


@contextmanager
def in_turn(group: Processes) -> Iterator[None]:
    """A context that one process of each machine enters at a time: the host's memory holds one whole model."""
    for number in range(group.local_world):
        if number == group.local_rank:
            yield
        group.wait()


def own_parts(weights: Sequence[DTensor]) -> tuple[list[nn.Parameter], torch.Tensor]:
    """This process's parts of weights, as an optimizer's parameters, and one flat tensor of which their gradients are views.

    A backward pass adds the summed gradients to it.
    """
    parts = [weight.to_local().detach() for weight in weights]
    sizes = [part.numel() for part in parts]
    flat = torch.zeros(sum(sizes), device=parts[0].device)
    parameters = []
    for weight, part, values in zip(weights, parts, torch.split(flat, sizes), strict=True):
        gradient = values.view_as(part)
        weight.grad = _as_part_of(weight, gradient)
        parameter = nn.Parameter(part)
        parameter.grad = gradient
        parameters.append(parameter)
    return parameters, flat


def whole_weights(model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """All weights in the host's memory, by name, tied ones once; to be called by all processes.

    Args:
        keep: whether this process wants them; another one receives none.
    """
    found = {}
    seen: set[int] = set()
    for name, weight in model.state_dict(keep_vars=True).items():
        if id(weight) not in seen:
            seen.add(id(weight))
            whole = (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().to("cpu", copy=True)
            if keep:
                found[name] = whole
    return found


def whole_optimizer_state(optimizer: torch.optim.Optimizer, sharding: Sharding) -> dict[str, torch.Tensor]:
    """The tensors of an optimizer's state, by "parameter.name", whole, in the first process; to be called by all processes."""
    tensors = {}
    for number, values in sorted(optimizer.state_dict()["state"].items()):
        for name, value in sorted(values.items()):
            part = value.to(sharding.group.device)
            whole = (_as_part_of(sharding.weights[number], part).full_tensor() if value.ndim else part).to("cpu", copy=True)
            if sharding.group.rank == 0:
                tensors[f"{number}.{name}"] = whole
    return tensors


def part_of_whole(whole: torch.Tensor, group: Processes) -> torch.Tensor:
    """This process's part of a whole tensor, as `fully_shard` divides it: in pieces of equal height, the last ones lower or empty."""
    pieces = torch.chunk(whole, group.world)
    return pieces[group.rank] if group.rank < len(pieces) else whole[:0]


def _as_part_of(weight: DTensor, part: torch.Tensor) -> DTensor:
    """A tensor that is divided as a weight is, from this process's part."""
    return DTensor.from_local(part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride())
