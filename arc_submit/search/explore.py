"""Exploration: programs in order of their cost, on all examples of a task at once, until the counted work is used up.

A state is a tuple of nodes, one per example, that a program computes. The exploration expands only the cheapest program of each state, so
that it enumerates different behaviours instead of programs. The costs that set the order are those of the operations' table, or costs that
are proposed for one task. This module knows only the size of outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import borrowed, jit
from arc_submit.search.operations import OPERATIONS, TABLE, apply_operation
from arc_submit.search.store import FULL, IMAGES, WORK, Array, Store, commit, make_hash_table, make_store, push

STATES, CHILDREN, AT_COST, DONE = range(4)
UNKNOWN = -2
MAX_COST = 399
DECAY = 0.5 ** (np.arange(MAX_COST + 1) / 10)  # a program of one more step counts half


class Exploration(NamedTuple):
    """The frontier and the states found, in flat arrays.

    Attributes:
        states: int32 (states, examples), a node per example.
        info: int32 (states, 4): cost, parent state (-1 for the input), operation from the parent, 1 for a list.
        support: float32 (states,): the other programs that reach a state, each weighted by its simplicity relative to the first.
        table: int32, an open hash table of state numbers plus 1, 0 for a free slot.
        operations: int64, the numbers of the operations to try, sorted by cost class.
        class_starts: int64 (cost classes + 1), where each class begins in `operations`.
        class_costs: int64 (cost classes,), the distinct costs of operations. A state waits in the queue once per class, not per operation.
        queue: int32 (states, 2), linked lists: the cost class of the operations that a state tries next, and the next state in its list.
        heads: int32 (costs, 2): first and last state in the list of each total cost, -1 for an empty list.
        rows: int32 (nodes, cost classes): the index in `children` of a node's results by the operations of a class, plus 1; 0 before they
            are tried.
        children: int32, the node that results from an operation, -1 where it has no result, UNKNOWN before it is tried.
        counters: int64 (4,): states and children used, the cost in progress, 1 when everything up to MAX_COST is done.
    """

    states: Array
    info: Array
    support: Array
    table: Array
    operations: Array
    class_starts: Array
    class_costs: Array
    queue: Array
    heads: Array
    rows: Array
    children: Array
    counters: Array


class Capacity(NamedTuple):
    """The lengths of the arrays of a search; they take memory only as they fill."""

    cells: int
    nodes: int
    states: int
    children: int


def start(inputs: list[Grid], outputs: list[Grid], capacity: Capacity, costs: Array | None = None) -> tuple[Store, Exploration]:
    """A store with the inputs of all examples, and an exploration whose only state is the tuple of them.

    Args:
        outputs: they determine only the colours to paint with.
        costs: int64 (operations,), at least 1: the cost of each row of TABLE that sets the order; None takes the table's own.
    """
    costs = TABLE[:, 5] if costs is None else costs
    class_costs = np.unique(costs)
    by_class = _useful_operations(inputs, outputs, costs)
    store = make_store(capacity.cells, 2 * capacity.nodes, capacity.nodes)
    exploration = Exploration(
        states=np.empty((capacity.states, len(inputs)), np.int32),
        info=np.empty((capacity.states, 4), np.int32),
        support=np.zeros(capacity.states, np.float32),
        table=make_hash_table(capacity.states),
        operations=np.concatenate(by_class),
        class_starts=np.cumsum([0] + [len(operations) for operations in by_class]).astype(np.int64),
        class_costs=class_costs,
        queue=np.empty((capacity.states, 2), np.int32),
        heads=np.full((MAX_COST + 1, 2), -1, np.int32),
        rows=np.zeros((capacity.nodes, len(class_costs)), np.int32),
        children=np.empty(capacity.children, np.int32),
        counters=np.zeros(4, np.int64),
    )
    root = np.empty(len(inputs), np.int32)
    for example, grid in enumerate(inputs):
        first = int(store.counters[IMAGES])
        push(store, 0, 0, np.array(grid))
        root[example] = commit(store, first, 0, example, True)
    add_state(exploration, root, 0, -1, -1, 0, class_costs)
    return store, exploration


def _useful_operations(inputs: list[Grid], outputs: list[Grid], costs: Array) -> list[Array]:
    """By cost class, int64: all operations except those that paint a colour of no output or select a colour of no input."""
    output_colours = {int(c) for grid in outputs for c in np.unique(grid)}
    input_colours = {int(c) for grid in inputs for c in np.unique(grid)}
    class_costs = np.unique(costs)
    by_class: list[list[int]] = [[] for _ in class_costs]
    for number, operation in enumerate(OPERATIONS):
        name = operation.name.partition("(")[0]
        useless = (name in ("paint", "fill_background") and operation.argument not in output_colours) or (
            name in ("keep", "erase") and operation.argument not in input_colours
        )
        if not useless:
            by_class[int(np.searchsorted(class_costs, costs[number]))].append(number)
    return [np.array(numbers, dtype=np.int64) for numbers in by_class]


@jit
def add_state(ex: Exploration, nodes: Array, cost: int, parent: int, operation: int, is_list: int, class_costs: Array) -> bool:
    """Add a state, or add to the support of an equal state; False where there is no room."""
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
    _enqueue(ex, state, 0, cost + class_costs[0])
    return True


@jit
def _enqueue(ex: Exploration, state: int, cost_class: int, cost: int) -> None:
    """Append a state, which is in no list, to the list of a total cost for its operations of one cost class."""
    if cost >= ex.heads.shape[0]:
        return
    ex.queue[state, 0] = cost_class
    ex.queue[state, 1] = -1
    if ex.heads[cost, 0] < 0:
        ex.heads[cost, 0] = state
    else:
        ex.queue[ex.heads[cost, 1], 1] = state
    ex.heads[cost, 1] = state


@jit
def _children_row(store: Store, ex: Exploration, node: int, cost_class: int, width: int) -> int:
    """The index in `children` of a node's results by the operations of one class; marks the store full where there is no room."""
    row = ex.rows[node, cost_class] - 1
    if row < 0:
        row = ex.counters[CHILDREN]
        if row + width > ex.children.size:
            store.counters[FULL] = 1
            return 0
        ex.counters[CHILDREN] = row + width
        ex.rows[node, cost_class] = row + 1
        ex.children[row : row + width] = UNKNOWN
    return int(row)


@jit
def _explore(held_store: Store, held: Exploration, table: Array, class_costs: Array, frames: Array, limits: Array, work_limit: int) -> None:
    store, ex = borrowed(held_store), borrowed(held)
    table, class_costs, frames, limits = borrowed(table), borrowed(class_costs), borrowed(frames), borrowed(limits)
    nodes = np.empty(ex.states.shape[1], np.int32)
    rows = np.empty(ex.states.shape[1], np.int64)
    while True:
        # Take the next state of the cheapest list; a state moves on to its next cost class before it is expanded.
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
        cost_class = ex.queue[state, 0]
        if cost_class + 1 < class_costs.size:
            _enqueue(ex, state, cost_class + 1, ex.info[state, 0] + class_costs[cost_class + 1])
        from_list = ex.info[state, 3]
        begin, end = ex.class_starts[cost_class], ex.class_starts[cost_class + 1]
        for example in range(nodes.size):
            rows[example] = _children_row(store, ex, ex.states[state, example], cost_class, end - begin)
        if store.counters[FULL] != 0:
            return
        for k in range(begin, end):
            operation = ex.operations[k]
            # An operation on lists needs a list; one that splits an image does not split lists.
            if (table[operation, 3] != 0 and from_list == 0) or (table[operation, 3] == 0 and table[operation, 4] != 0 and from_list == 1):
                continue
            complete = True
            for example in range(nodes.size):
                # Examples share nodes between states, so an operation may have been applied to this node before.
                child_index = rows[example] + k - begin
                child = ex.children[child_index]
                if child == UNKNOWN:
                    child = apply_operation(store, ex.states[state, example], table[operation], frames, limits)
                    ex.children[child_index] = child
                nodes[example] = child
                if child < 0:
                    complete = False
                    break
            if not complete:
                continue
            is_list = table[operation, 4] if table[operation, 3] or table[operation, 4] else from_list
            if not add_state(ex, nodes, cost, state, operation, is_list, class_costs):
                store.counters[FULL] = 1
                return


def explore(store: Store, ex: Exploration, frames: Array, limits: Array, work_limit: int) -> None:
    """Try operations in order of total cost until the work, the costs or the capacity is used up; a later call continues.

    Args:
        frames, limits: as for `apply_operation`.
        work_limit: bound on store.counters[WORK].
    """
    _explore(store, ex, TABLE, ex.class_costs, frames, limits, work_limit)


def program_of(ex: Exploration, state: int) -> str:
    """The program that reaches a state: "input" and the names of its operations, joined by " | "."""
    names: list[str] = []
    while ex.info[state, 1] >= 0:
        names.append(OPERATIONS[ex.info[state, 2]].name)
        state = int(ex.info[state, 1])
    return " | ".join(["input", *names[::-1]])


@jit
def table_costs(ex: Exploration, table: Array) -> Array:
    """int64 (states,): the cost of each state's program in the operations' table, which is its simplicity, whatever set the order."""
    costs = np.zeros(ex.counters[STATES], np.int64)
    for state in range(1, costs.size):
        costs[state] = costs[ex.info[state, 1]] + table[ex.info[state, 2], 5]
    return costs
