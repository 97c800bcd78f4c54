"""Exploration: programs in order of their cost, all examples of a task at once, until the counted work is used up.

A state is a tuple of nodes, one per example, that one program reaches in every example; only the cheapest program of each state is
kept, so that what grows is the number of different behaviours and not of programs. Knows nothing about outputs except their size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit
from arc_submit.search.operations import OPERATIONS, TABLE, apply
from arc_submit.search.store import FULL, WORK, Array, Store, commit, make_store, push

STATES, CHILDREN, AT_COST, DONE = range(4)
UNKNOWN = -2
DECAY = 0.5 ** (np.arange(400) / 10)  # a program of one more step counts half


class Exploration(NamedTuple):
    """The frontier and the states found, in flat arrays.

    Attributes:
        states: int32 (states, examples), a node per example.
        info: int32 (states, 4): cost, parent state (-1 for the input), operation that led here, 1 for a list.
        support: float32 (states,): the programs that lead to a state beside the first, each counted by how simple it is against that one.
        table: int32, an open hash table of states, each counted from 1, 0 where free.
        operations: int64, the numbers of the operations to try, by cost class; `class_starts`, int64 (cost classes + 1), says where each
            class begins.
        queue: int32 (states, 2): each state's place in the queue: the cost class of the operations it is to try next, and the state after
            it at the same total cost.
        heads: int32 (costs, 2): first and last state of each total cost, -1 where there is none.
        rows: int32 (nodes, cost classes), where in `children` the operations of a class begin for a node, counted from 1, 0 before they
            were tried.
        children: int32, the node an operation leads to, -1 where it has no result, UNKNOWN before it was tried.
        counters: int64 (4,): states and children used, the cost being worked on, 1 once everything within reach was done.
    """

    states: Array
    info: Array
    support: Array
    table: Array
    operations: Array
    class_starts: Array
    queue: Array
    heads: Array
    rows: Array
    children: Array
    counters: Array


class Capacity(NamedTuple):
    """How much a search may hold; arrays of these lengths are reserved and take memory only as they fill."""

    cells: int
    nodes: int
    states: int
    children: int


def start(inputs: list[Grid], outputs: list[Grid], capacity: Capacity) -> tuple[Store, Exploration]:
    """A store with the inputs of all examples, and an exploration whose one state is the tuple of them.

    The outputs say only which colours are worth painting.
    """
    by_class = _useful_operations(inputs, outputs)
    store = make_store(capacity.cells, 2 * capacity.nodes, capacity.nodes)
    exploration = Exploration(
        np.empty((capacity.states, len(inputs)), np.int32),
        np.empty((capacity.states, 4), np.int32),
        np.zeros(capacity.states, np.float32),
        np.zeros(1 << int(np.ceil(np.log2(2 * capacity.states))), np.int32),
        np.concatenate(by_class),
        np.cumsum([0] + [len(ops) for ops in by_class]).astype(np.int64),
        np.empty((capacity.states, 2), np.int32),
        np.full((400, 2), -1, np.int32),
        np.zeros((capacity.nodes, len(COST_CLASSES)), np.int32),
        np.empty(capacity.children, np.int32),
        np.zeros(4, np.int64),
    )
    root = np.empty(len(inputs), np.int32)
    for example, grid in enumerate(inputs):
        first = int(store.counters[1])
        push(store, 0, 0, np.array(grid))
        root[example] = commit(store, first, 0, example, True)
    add_state(exploration, root, 0, -1, -1, 0, COST_CLASSES)
    return store, exploration


# The distinct costs of operations: a state waits in the queue once per cost and not once per operation.
COST_CLASSES = np.unique(TABLE[:, 5])


def _useful_operations(inputs: list[Grid], outputs: list[Grid]) -> list[Array]:
    """By cost class, int64: all operations but those on colours that no input has or that no output shows."""
    shown = {f"({c})" for grid in outputs for c in np.unique(grid)}
    present = {f"({c})" for grid in inputs for c in np.unique(grid)}
    by_class: list[list[int]] = [[] for _ in COST_CLASSES]
    for number, operation in enumerate(OPERATIONS):
        name, _, argument = operation.name.partition("(")
        painted = name in ("paint", "fill_background") and f"({argument}" not in shown
        if not painted and not (name in ("keep", "erase") and f"({argument}" not in present):
            by_class[int(np.searchsorted(COST_CLASSES, operation.cost))].append(number)
    return [np.array(numbers, dtype=np.int64) for numbers in by_class]


@jit
def add_state(ex: Exploration, nodes: Array, cost: int, parent: int, operation: int, is_list: int, class_costs: Array) -> bool:
    """Add a state, or the support of one more program to a known one; False where there is no room."""
    value = np.uint64(1469598103934665603)
    for node in nodes:
        value = (value ^ np.uint64(node)) * np.uint64(1099511628211)
        value = value ^ (value >> np.uint64(31))
    mask = ex.table.size - 1
    slot = np.int64(value >> np.uint64(16)) & mask
    while ex.table[slot] > 0:
        state = ex.table[slot] - 1
        same = True
        for k in range(nodes.size):
            if ex.states[state, k] != nodes[k]:
                same = False
                break
        if same:
            ex.support[state] += DECAY[cost - ex.info[state, 0]]
            return True
        slot = (slot + 1) & mask
    state = ex.counters[STATES]
    if state >= ex.states.shape[0]:
        return False
    ex.table[slot] = state + 1
    for k in range(nodes.size):
        ex.states[state, k] = nodes[k]
    ex.info[state, 0] = cost
    ex.info[state, 1] = parent
    ex.info[state, 2] = operation
    ex.info[state, 3] = is_list
    ex.counters[STATES] = state + 1
    _queue(ex, state, 0, cost + class_costs[0])
    return True


@jit
def _queue(ex: Exploration, state: int, place: int, cost: int) -> None:
    """Put a state, which is in no queue, into the one of a total cost for its operations of one cost class."""
    if cost >= ex.heads.shape[0]:
        return
    ex.queue[state, 0] = place
    ex.queue[state, 1] = -1
    if ex.heads[cost, 0] < 0:
        ex.heads[cost, 0] = state
    else:
        ex.queue[ex.heads[cost, 1], 1] = state
    ex.heads[cost, 1] = state


@jit
def _row(store: Store, ex: Exploration, node: int, place: int, width: int) -> int:
    """Where the children of a node by the operations of one class lie; the store is marked full where there is no room."""
    row = ex.rows[node, place] - 1
    if row < 0:
        row = ex.counters[CHILDREN]
        if row + width > ex.children.size:
            store.counters[FULL] = 1
            return 0
        ex.counters[CHILDREN] = row + width
        ex.rows[node, place] = row + 1
        ex.children[row : row + width] = UNKNOWN
    return int(row)


@jit
def explore(
    store: Store,
    ex: Exploration,
    table: Array,
    class_costs: Array,
    frames: Array,
    limits: Array,
    work_limit: int,
    cost_limit: int,
) -> None:
    """Try operations in order of total cost until the work, the cost limit or the room is used up; may be called again to go on."""
    nodes = np.empty(ex.states.shape[1], np.int32)
    rows = np.empty(ex.states.shape[1], np.int64)
    while ex.counters[AT_COST] <= cost_limit:
        cost = ex.counters[AT_COST]
        state = ex.heads[cost, 0]
        if state < 0:
            if cost + 1 >= ex.heads.shape[0]:
                ex.counters[DONE] = 1
                return
            ex.counters[AT_COST] = cost + 1
            continue
        if store.counters[WORK] >= work_limit or store.counters[FULL] != 0:
            return
        ex.heads[cost, 0] = ex.queue[state, 1]
        place = ex.queue[state, 0]
        if place + 1 < class_costs.size:
            _queue(ex, state, place + 1, ex.info[state, 0] + class_costs[place + 1])
        from_list = ex.info[state, 3]
        for example in range(nodes.size):
            rows[example] = _row(store, ex, ex.states[state, example], place, ex.class_starts[place + 1] - ex.class_starts[place])
        if store.counters[FULL] != 0:
            return
        for k in range(ex.class_starts[place], ex.class_starts[place + 1]):
            operation = ex.operations[k]
            if (table[operation, 3] != 0 and from_list == 0) or (table[operation, 3] == 0 and table[operation, 4] != 0 and from_list == 1):
                continue
            whole = True
            for example in range(nodes.size):
                place_of_child = rows[example] + k - ex.class_starts[place]
                child = ex.children[place_of_child]
                if child == UNKNOWN:
                    child = apply(store, ex.states[state, example], table[operation], frames, limits)
                    ex.children[place_of_child] = child
                nodes[example] = child
                if child < 0:
                    whole = False
                    break
            if not whole:
                continue
            is_list = table[operation, 4] if table[operation, 3] or table[operation, 4] else from_list
            if not add_state(ex, nodes, cost, state, operation, is_list, class_costs):
                store.counters[FULL] = 1
                return


def run(store: Store, ex: Exploration, frames: Array, limits: Array, work_limit: int, cost_limit: int = 399) -> None:
    """`explore` with the table of operations."""
    explore(store, ex, TABLE, COST_CLASSES, frames, limits, work_limit, cost_limit)


def program(ex: Exploration, state: int) -> list[str]:
    """The names of the operations that lead from the input to a state."""
    names: list[str] = []
    while ex.info[state, 1] >= 0:
        names.append(OPERATIONS[ex.info[state, 2]].name)
        state = int(ex.info[state, 1])
    return names[::-1]
