"""Samples: what random programs of the search's operations make of grids of known tasks, with the operations that made it.

An exploration of the search in an order drawn at random gives each outcome with the cheapest program in that order, so that a sample's
program is a short one. A sample is one program, or one laid over another, on the grids of one task. Does not know networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import MAX_SIDE, Grid, frozen, same_grid
from arc_submit.arc.task import Pair
from arc_submit.search.explore import STATES, Capacity, Exploration, explore, start
from arc_submit.search.operations import OPERATIONS, TABLE
from arc_submit.search.stacking import node_cells
from arc_submit.search.store import Array, Store

_WORK = 1_000_000  # cells that an exploration may touch: programs of two to four steps on grids of some hundred cells
_CAPACITY = Capacity(cells=3_000_000, nodes=60_000, states=60_000, children=900_000)
_TRIES = 10  # programs drawn for each one that is wanted
_STACKED = 0.3  # share of samples that lay one program's result over another's
_SIZED = 0.6  # share of explorations that know the size of their task's outputs
_MOST_CELLS = 200  # of a grid


@dataclass(frozen=True)
class ProgramSample:
    """A task that programs make.

    Attributes:
        pairs: inputs of one task with what the programs make of them.
        programs: the numbers of each program's operations in order, one program for each layer, the top one first.
    """

    pairs: tuple[Pair, ...]
    programs: tuple[tuple[int, ...], ...]


def operations_of(exploration: Exploration, state: int) -> tuple[int, ...]:
    """The numbers of the operations of a state's program, in order."""
    numbers: list[int] = []
    while exploration.info[state, 1] >= 0:
        numbers.append(int(exploration.info[state, 2]))
        state = int(exploration.info[state, 1])
    return tuple(numbers[::-1])


def labels_of(programs: Sequence[Sequence[int]]) -> Array:
    """float32 (2, operations): 1 where an operation is in one of the programs, and where it is the first of one."""
    out = np.zeros((2, len(OPERATIONS)), np.float32)
    for program in programs:
        out[0, list(program)] = 1
        out[1, list(program[:1])] = 1
    return out


def random_costs(rng: np.random.Generator) -> Array:
    """int64 (operations,): the table's costs with noise, so that each exploration prefers other operations."""
    return np.clip(np.rint(TABLE[:, 5] * np.exp(rng.normal(0, 0.5, len(TABLE)))), 2, 16).astype(np.int64)


def draw_samples(tasks: Sequence[Sequence[Pair]], rng: np.random.Generator, each: int = 4) -> Iterator[ProgramSample]:
    """Samples without end, a function of the arguments alone; it ends where a thousand explorations in a row make none.

    Args:
        tasks: pairs of known tasks; of their outputs only the sizes and the colours are used.
        each: most samples from one exploration.
    """
    small = [pairs for pairs in ([p for p in task if p.input.size <= _MOST_CELLS] for task in tasks) if len(pairs) > 1]
    empty = 0
    while small and empty < 1000:
        pairs = small[int(rng.integers(len(small)))]
        chosen = [pairs[k] for k in rng.permutation(len(pairs))[: int(rng.integers(2, 5))]]
        made = list(_from_one_exploration(chosen, rng, each))
        empty = 0 if made else empty + 1
        yield from made


def _from_one_exploration(pairs: Sequence[Pair], rng: np.random.Generator, each: int) -> Iterator[ProgramSample]:
    inputs = [pair.input for pair in pairs]
    sized = bool(rng.random() < _SIZED)
    frames = np.array([(*(p.output.shape if sized else (0, 0)), *p.input.shape) for p in pairs], dtype=np.int64)
    largest = max(max(p.input.size, p.output.size) for p in pairs)
    store, exploration = start(inputs, [pair.output for pair in pairs], _CAPACITY, random_costs(rng))
    explore(store, exploration, frames, np.array([2 * largest, 4 * largest, 100], dtype=np.int64), _WORK)
    states = np.arange(1, int(exploration.counters[STATES]))
    images = store.images[store.nodes[exploration.states[states], 0], 2:4]
    kept = (exploration.info[states, 3] == 0) & (images.max(axis=(1, 2)) <= MAX_SIDE)
    # What knows the outputs' size must have it, as an answer of the search has.
    kept &= (images == frames[:, :2]).all(axis=(1, 2)) if sized else kept
    states = states[kept]
    if not len(states):
        return
    costs, place = np.unique(exploration.info[states, 0], return_inverse=True)
    made = 0
    seen = set()
    for _ in range(_TRIES * each):
        layers = [int(rng.choice(states[place == rng.integers(len(costs))])) for _ in range(2 if rng.random() < _STACKED else 1)]
        outputs = [_laid(store, exploration, layers, k) for k in range(len(inputs))]
        whole = [output for output in outputs if output is not None]
        if len(whole) < len(inputs) or not _worth_learning(inputs, whole):
            continue
        result = tuple(Pair(grid, output) for grid, output in zip(inputs, whole, strict=True))
        key = b"|".join(pair.output.tobytes() for pair in result)
        if key not in seen:
            seen.add(key)
            made += 1
            yield ProgramSample(result, tuple(operations_of(exploration, state) for state in layers))
        if made == each:
            return


def _laid(store: Store, exploration: Exploration, layers: Sequence[int], example: int) -> Grid | None:
    """The layers on top of each other in one example; None where they differ in size."""
    out, *below = [node_cells(store, int(exploration.states[state, example])) for state in layers]
    for cells in below:
        if cells.shape != out.shape:
            return None
        out = np.where(out == 0, cells, out)
    return frozen(np.array(out, dtype=np.int8))


def _worth_learning(inputs: Sequence[Grid], outputs: Sequence[Grid]) -> bool:
    """Whether outputs ask for something: they differ, none is blank, and at most a third are their inputs."""
    if any(not output.any() for output in outputs) or all(same_grid(outputs[0], other) for other in outputs[1:]):
        return False
    return 3 * sum(same_grid(a, b) for a, b in zip(inputs, outputs, strict=True)) <= len(inputs)
