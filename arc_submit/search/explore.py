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

STATES, ENTRIES, ROWS, AT_COST, DONE = range(5)
UNKNOWN = -2


class Exploration(NamedTuple):
    """The frontier and the states found, in flat arrays.

    Attributes:
        states: int32 (states, examples), a node per example.
        info: int32 (states, 4): cost, parent state (-1 for the input), operation that led here, 1 for a list.
        table: int32, an open hash table of states, -1 where free.
        entries: int32 (entries, 3): state, index into the distinct costs of operations, next entry of the same total cost.
        heads: int32 (costs, 2): first and last entry of each total cost, -1 where there is none.
        rows: int32 (nodes,), the row of `children` of each node, -1 where it has none.
        children: int32 (rows, operations), the node an operation leads to, -1 where it has no result, UNKNOWN before it was tried.
        counters: int64 (5,): states, entries and rows used, the cost being worked on, 1 once everything within reach was done.
    """

    states: Array
    info: Array
    table: Array
    entries: Array
    heads: Array
    rows: Array
    children: Array
    counters: Array


class Capacity(NamedTuple):
    """How much a search may hold; arrays of these lengths are reserved and take memory only as they fill."""

    cells: int
    nodes: int
    states: int
    rows: int


def start(inputs: list[Grid], capacity: Capacity) -> tuple[Store, Exploration]:
    """A store with the inputs of all examples, and an exploration whose one state is the tuple of them."""
    store = make_store(capacity.cells, 2 * capacity.nodes, capacity.nodes)
    classes = len(COST_CLASSES)
    exploration = Exploration(
        np.empty((capacity.states, len(inputs)), np.int32),
        np.empty((capacity.states, 4), np.int32),
        np.full(1 << int(np.ceil(np.log2(2 * capacity.states))), -1, np.int32),
        np.empty((capacity.states * (classes + 1), 3), np.int32),
        np.full((400, 2), -1, np.int32),
        np.full(capacity.nodes, -1, np.int32),
        np.empty((capacity.rows, len(OPERATIONS)), np.int32),
        np.zeros(5, np.int64),
    )
    root = np.empty(len(inputs), np.int32)
    for example, grid in enumerate(inputs):
        first = int(store.counters[1])
        push(store, 0, 0, np.array(grid))
        root[example] = commit(store, first, 0, example)
    if (root >= 0).all():
        add_state(exploration, root, 0, -1, -1, 0, COST_CLASSES)
    else:
        exploration.counters[DONE] = 1  # an input without a painted cell: nothing to work on
    return store, exploration


# The distinct costs of operations, and which operations have each: a state waits in the queue once per cost and not per operation.
COST_CLASSES = np.unique(TABLE[:, 5])
_by_cost = [np.flatnonzero(TABLE[:, 5] == cost) for cost in COST_CLASSES]
CLASS_STARTS = np.concatenate([[0], np.cumsum([len(ops) for ops in _by_cost])]).astype(np.int64)
CLASS_OPERATIONS = np.concatenate(_by_cost).astype(np.int64)


@jit
def add_state(ex: Exploration, nodes: Array, cost: int, parent: int, operation: int, is_list: int, class_costs: Array) -> bool:
    """Add a state, or lower the cost of a known one; False where there is no room."""
    value = np.uint64(1469598103934665603)
    for node in nodes:
        value = (value ^ np.uint64(node)) * np.uint64(1099511628211)
        value = value ^ (value >> np.uint64(31))
    mask = ex.table.size - 1
    slot = np.int64(value >> np.uint64(16)) & mask
    while ex.table[slot] >= 0:
        state = ex.table[slot]
        same = True
        for k in range(nodes.size):
            if ex.states[state, k] != nodes[k]:
                same = False
                break
        if same:
            return True
        slot = (slot + 1) & mask
    state = ex.counters[STATES]
    if state >= ex.states.shape[0] or ex.counters[ENTRIES] >= ex.entries.shape[0]:
        return False
    ex.table[slot] = state
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
    """Put a state into the queue for its operations of one cost class."""
    if cost >= ex.heads.shape[0]:
        return
    entry = ex.counters[ENTRIES]
    if entry >= ex.entries.shape[0]:
        return
    ex.counters[ENTRIES] = entry + 1
    ex.entries[entry, 0] = state
    ex.entries[entry, 1] = place
    ex.entries[entry, 2] = -1
    if ex.heads[cost, 0] < 0:
        ex.heads[cost, 0] = entry
    else:
        ex.entries[ex.heads[cost, 1], 2] = entry
    ex.heads[cost, 1] = entry


@jit
def _child(store: Store, ex: Exploration, node: int, operation: int, table: Array, frames: Array, limits: Array) -> int:
    row = ex.rows[node]
    if row < 0:
        row = ex.counters[ROWS]
        if row >= ex.children.shape[0]:
            store.counters[FULL] = 1
            return -1
        ex.counters[ROWS] = row + 1
        ex.rows[node] = row
        ex.children[row, :] = UNKNOWN
    child = ex.children[row, operation]
    if child == UNKNOWN:
        child = apply(store, node, table[operation], frames, limits)
        ex.children[row, operation] = child
    return int(child)


@jit
def explore(
    store: Store,
    ex: Exploration,
    table: Array,
    class_costs: Array,
    class_starts: Array,
    class_operations: Array,
    frames: Array,
    limits: Array,
    work_limit: int,
    cost_limit: int,
) -> None:
    """Try operations in order of total cost until the work, the cost limit or the room is used up; may be called again to go on."""
    nodes = np.empty(ex.states.shape[1], np.int32)
    while ex.counters[AT_COST] <= cost_limit:
        cost = ex.counters[AT_COST]
        entry = ex.heads[cost, 0]
        if entry < 0:
            if cost + 1 >= ex.heads.shape[0]:
                ex.counters[DONE] = 1
                return
            ex.counters[AT_COST] = cost + 1
            continue
        if store.counters[WORK] >= work_limit or store.counters[FULL] != 0:
            return
        ex.heads[cost, 0] = ex.entries[entry, 2]
        state, place = ex.entries[entry, 0], ex.entries[entry, 1]
        if place + 1 < class_costs.size:
            _queue(ex, state, place + 1, ex.info[state, 0] + class_costs[place + 1])
        from_list = ex.info[state, 3]
        for k in range(class_starts[place], class_starts[place + 1]):
            operation = class_operations[k]
            if (table[operation, 3] != 0 and from_list == 0) or (table[operation, 3] == 0 and table[operation, 4] != 0 and from_list == 1):
                continue
            whole = True
            for example in range(nodes.size):
                nodes[example] = _child(store, ex, ex.states[state, example], operation, table, frames, limits)
                if nodes[example] < 0:
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
    explore(store, ex, TABLE, COST_CLASSES, CLASS_STARTS, CLASS_OPERATIONS, frames, limits, work_limit, cost_limit)


def program(ex: Exploration, state: int) -> list[str]:
    """The names of the operations that lead from the input to a state."""
    names: list[str] = []
    while ex.info[state, 1] >= 0:
        names.append(OPERATIONS[ex.info[state, 2]].name)
        state = int(ex.info[state, 1])
    return names[::-1]
