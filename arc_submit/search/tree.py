"""Decision trees over integer features, whose leaves either name a colour or copy a feature that holds one.

Copying is what lets a rule learned on red speak about blue. Knows nothing about grids: rows are cells, columns are features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arc_submit.search.jit import jit
from arc_submit.search.store import Array

VALUES = 64  # feature values are clipped to 0..63
COPIES = 8  # copied columns that a node weighs when it looks for a split; its leaf may copy any


@dataclass(frozen=True)
class Tree:
    """A fitted tree.

    Attributes:
        nodes: int64 (nodes, 5): feature (-1 for a leaf), test, left child (where the test holds), right child, option.
            A test t below 64 is value <= t, from 64 on it is value == t - 64.
            An option below 10 is a colour; option 10 + k copies column k.
        errors: rows of the fit that the tree gets wrong.
    """

    nodes: Array
    errors: int

    @property
    def leaves(self) -> int:
        return int((self.nodes[:, 0] < 0).sum())


def fit(features: Array, labels: Array, copied: Array, allowed: Array, max_nodes: int = 63) -> Tree:
    """Grow a tree that splits where it lowers the errors of the best leaves most, until none is left or it is too large.

    Args:
        features: uint8 (rows, columns), values 0..63.
        labels: int64 (rows,), colours 0..9.
        copied: int64, the columns that a leaf may copy.
        allowed: bool (columns,), the columns that a split may use.
    """
    # Only a colour is worth testing for being just this one.
    named = np.zeros(features.shape[1], np.bool_)
    named[copied] = True
    copied = _first_of_equal(features, copied)
    options = np.empty((len(labels), 10 + len(copied)), np.bool_)
    options[:, :10] = labels[:, None] == np.arange(10)
    options[:, 10:] = features[:, copied] == labels[:, None]
    columns = _first_of_equal(features, np.flatnonzero(allowed))
    nodes, count, errors = _grow(np.ascontiguousarray(features.T), options, columns, named, max_nodes)
    nodes = nodes[:count]
    copies = nodes[:, 4] >= 10
    nodes[copies, 4] = 10 + copied[nodes[copies, 4] - 10]
    return Tree(nodes, int(errors))


def predict(tree: Tree, features: Array) -> Array:
    """int64 (rows,): a colour for each row."""
    return np.asarray(_walk(tree.nodes, np.ascontiguousarray(features.T)))


def _first_of_equal(features: Array, columns: Array) -> Array:
    """Of columns that hold the same values in every row only the first, which is the plainest."""
    first: dict[bytes, int] = {}
    for column in columns:
        first.setdefault(features[:, column].tobytes(), int(column))
    return np.array(list(first.values()), dtype=np.int64)


@jit
def _best_option(totals: Array) -> int:
    """The option with most hits. Copies come after colours, so a colour wins a tie only by more hits: copies speak for all colours."""
    best = 0
    for option in range(totals.size):
        if totals[option] > totals[best] or (totals[option] == totals[best] and best < 10 <= option):
            best = option
    return best


@jit
def _contenders(options: Array, rows: Array, totals: Array) -> Array:
    """The options worth weighing in a node: its colours, and the copies that hit most of what its commonest colour misses."""
    count = options.shape[1]
    commonest = totals[:10].argmax()
    gains = np.zeros(count, np.int64)
    for row in rows:
        if not options[row, commonest]:
            for o in range(10, count):
                gains[o] += options[row, o]
    chosen = np.empty(10 + COPIES, np.int64)
    n = 0
    for o in range(10):
        if totals[o] > 0:
            chosen[n] = o
            n += 1
    for _ in range(COPIES):
        best = -1
        for o in range(10, count):
            if gains[o] >= 0 and (best < 0 or gains[o] > gains[best] or (gains[o] == gains[best] and totals[o] > totals[best])):
                best = o
        if best < 0:
            break
        gains[best] = -1
        chosen[n] = best
        n += 1
    return chosen[:n].copy()


@jit
def holds(value: int, test: int) -> bool:
    """Whether a feature's value passes a node's test."""
    return value == test - VALUES if test >= VALUES else value <= test


@jit
def _score(inside: Array, size: int, chosen: Array, totals: Array, rows: int) -> float:
    """How good a split is that sends `size` of the rows, with these hits of the chosen options, one way and the rest the other."""
    best, rest_best, purity = 0, 0, 0.0
    for k in range(len(chosen)):
        rest = totals[chosen[k]] - inside[k]
        best, rest_best = max(best, inside[k]), max(rest_best, rest)
        if chosen[k] < 10:
            purity += inside[k] * inside[k] / size + rest * rest / (rows - size)
    return best + rest_best + 0.3 * purity


@jit
def _grow(features: Array, options: Array, columns: Array, named: Array, max_nodes: int) -> tuple[Array, int, int]:
    """`features` lies by columns, uint8 (columns, rows)."""
    rows, count = options.shape
    nodes = np.full((max_nodes + 2, 5), -1, np.int64)
    order = np.arange(rows)
    spans = np.zeros((max_nodes + 2, 2), np.int64)
    spans[0, 1] = rows
    used, todo, errors = 1, 0, 0
    hist = np.zeros((VALUES, 10 + COPIES), np.int64)
    sizes = np.zeros(VALUES, np.int64)
    left = np.zeros(10 + COPIES, np.int64)
    while todo < used:
        node = todo
        todo += 1
        begin, end = spans[node, 0], spans[node, 1]
        totals = np.zeros(count, np.int64)
        for r in range(begin, end):
            for o in range(count):
                totals[o] += options[order[r], o]
        nodes[node, 4] = _best_option(totals)
        missing = (end - begin) - totals[nodes[node, 4]]
        if missing == 0 or used + 2 > max_nodes:
            errors += missing
            continue
        kept = order[begin:end].copy()
        chosen = _contenders(options, kept, totals)
        n = len(chosen)
        hits = np.empty((end - begin, n), np.int64)
        for r in range(end - begin):
            for k in range(n):
                hits[r, k] = options[kept[r], chosen[k]]
        best_column, best_test, best_score = -1, 0, -1.0
        for column in columns:
            hist[:, :n] = 0
            sizes[:] = 0
            for r in range(end - begin):
                value = features[column, kept[r]]
                sizes[value] += 1
                for k in range(n):
                    hist[value, k] += hits[r, k]
            left[:n] = 0
            left_size = 0
            for value in range(VALUES - 1):
                if sizes[value] == 0:
                    continue
                left_size += sizes[value]
                if left_size == end - begin:
                    break
                for k in range(n):
                    left[k] += hist[value, k]
                score = _score(left[:n], left_size, chosen, totals, end - begin)
                # The first column wins ties: columns come in the order of how plain they are.
                if score > best_score + 1e-9:
                    best_column, best_test, best_score = column, value, score
                if named[column] and left_size > sizes[value]:
                    score = _score(hist[value, :n], sizes[value], chosen, totals, end - begin)
                    if score > best_score + 1e-9:
                        best_column, best_test, best_score = column, VALUES + value, score
        if best_column < 0:
            errors += missing
            continue
        split = begin
        for r in kept:
            if holds(features[best_column, r], best_test):
                order[split] = r
                split += 1
        place = split
        for r in kept:
            if not holds(features[best_column, r], best_test):
                order[place] = r
                place += 1
        nodes[node, 0], nodes[node, 1], nodes[node, 2], nodes[node, 3] = best_column, best_test, used, used + 1
        spans[used, 0], spans[used, 1] = begin, split
        spans[used + 1, 0], spans[used + 1, 1] = split, end
        used += 2
    return nodes, used, errors


@jit
def _walk(nodes: Array, features: Array) -> Array:
    out = np.empty(features.shape[1], np.int64)
    for r in range(features.shape[1]):
        node = 0
        while nodes[node, 0] >= 0:
            node = nodes[node, 2] if holds(features[nodes[node, 0], r], nodes[node, 1]) else nodes[node, 3]
        option = nodes[node, 4]
        out[r] = option if option < 10 else features[option - 10, r]
    return out
