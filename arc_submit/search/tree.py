"""Decision trees over integer features, whose leaves either name a colour or copy a feature that contains one.

Copying lets a rule learned from red cells apply to blue cells. This module does not know grids: rows are cells, columns are features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arc_submit.search.jit import jit
from arc_submit.search.store import Array

VALUES = 64  # feature values are clipped to 0..63
MAX_ROWS = 2**16 - 1
COPIES = 8  # the columns to copy that a node considers for a split; its leaf may copy any column
_WORDS = (10 + COPIES + 3) // 4


@dataclass(frozen=True)
class Tree:
    """A fitted tree.

    Attributes:
        nodes: int64 (nodes, 5): feature (-1 for a leaf), test, left child (for values that pass), right child, option.
            A test t below 64 means value <= t, from 64 on value == t - 64.
            An option below 10 is a colour; option 10 + k copies column k.
        errors: the number of training rows that the tree predicts wrong.
    """

    nodes: Array
    errors: int

    @property
    def leaves(self) -> int:
        return int((self.nodes[:, 0] < 0).sum())


def fit(features: Array, labels: Array, copied: Array, allowed: Array, max_nodes: int = 63) -> Tree:
    """Grow a tree greedily: each split is the one that lowers the errors most, until none is left or the tree is too large.

    Args:
        features: uint8 (rows, columns), values 0..63.
        labels: int64 (rows,), colours 0..9.
        copied: int64, the columns that a leaf may copy.
        allowed: bool (columns,), the columns that a split may use.

    Raises:
        ValueError: for more than MAX_ROWS rows.
    """
    if len(labels) > MAX_ROWS:
        raise ValueError(f"a tree of {len(labels)} rows: at most {MAX_ROWS} are allowed")
    # Only colours are tested for equality.
    nominal = np.zeros(features.shape[1], np.bool_)
    nominal[copied] = True
    by_column = np.ascontiguousarray(features.T)
    copied = _first_of_equal(by_column, copied)
    options = np.empty((len(labels), 10 + len(copied)), np.uint16)
    options[:, :10] = labels[:, None] == np.arange(10)
    options[:, 10:] = (by_column[copied] == labels).T
    columns = _first_of_equal(by_column, np.flatnonzero(allowed))
    nodes, count, errors = _grow(by_column, options, columns, nominal, max_nodes)
    nodes = nodes[:count]
    copies = nodes[:, 4] >= 10
    nodes[copies, 4] = 10 + copied[nodes[copies, 4] - 10]
    return Tree(nodes, int(errors))


def predict(tree: Tree, features: Array) -> Array:
    """The predicted colour of each row, int64 (rows,)."""
    return np.asarray(_walk(tree.nodes, np.ascontiguousarray(features.T)))


def _first_of_equal(by_column: Array, columns: Array) -> Array:
    """The columns without those that repeat the values of an earlier, and thus plainer, one."""
    first: dict[bytes, int] = {}
    for column in columns:
        first.setdefault(by_column[column].tobytes(), int(column))
    return np.array(list(first.values()), dtype=np.int64)


@jit
def _best_option(totals: Array) -> int:
    """The option with most hits; the first copy wins a tie with a colour, because a copy generalises to other colours."""
    best = 0
    for option in range(totals.size):
        if totals[option] > totals[best] or (totals[option] == totals[best] and best < 10 <= option):
            best = option
    return best


@jit
def _sums(options: Array, rows: Array) -> Array:
    """int64 (options,): how many of some rows each option gives their label."""
    sums = np.zeros(options.shape[1], np.uint16)  # as short as MAX_ROWS allows: many are added at once
    for row in rows:
        sums += options[row]
    return sums.astype(np.int64)


@jit
def _contenders(options: Array, rows: Array, totals: Array) -> Array:
    """The options that a node considers: its colours, and the copies that hit most of the rows that its commonest colour misses."""
    count = options.shape[1]
    commonest = totals[:10].argmax()
    missed = np.empty(len(rows), np.int64)
    m = 0
    for row in rows:
        missed[m] = row
        m += 1 if options[row, commonest] == 0 else 0
    gains = _sums(options, missed[:m])
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
def passes(value: int, test: int) -> bool:
    """Whether a feature's value passes a node's test."""
    return value == test - VALUES if test >= VALUES else value <= test


@jit
def _split_score(inside: Array, size: int, chosen: Array, totals: Array, rows: int) -> float:
    """The score of a split of `rows` rows into `size` rows, with `inside` hits of the chosen options, and the rest."""
    best, rest_best, purity = 0, 0, 0.0
    for k in range(len(chosen)):
        rest = totals[chosen[k]] - inside[k]
        best, rest_best = max(best, inside[k]), max(rest_best, rest)
        if chosen[k] < 10:
            purity += inside[k] * inside[k] / size + rest * rest / (rows - size)
    # The hits of the two best leaves, plus a share of the purity so that a split that only separates colours also counts.
    return best + rest_best + 0.3 * purity


@jit
def _packed_hits(options: Array, rows: Array, chosen: Array) -> Array:
    """uint64 (rows, words): whether each of the chosen options gives a row's label, four of them in a word, 16 bits for each.

    Sums of fewer than 65,536 rows are then four sums at once.
    """
    hits = np.zeros((len(rows), (len(chosen) + 3) // 4), np.uint64)
    for r in range(len(rows)):
        for k in range(len(chosen)):
            if options[rows[r], chosen[k]]:
                hits[r, k >> 2] |= np.uint64(1) << np.uint64(16 * (k & 3))
    return hits


@jit
def _unpack(packed: Array, words: int, out: Array) -> None:
    """The sums in packed words, one after the other."""
    for w in range(words):
        word = packed[w]
        for k in range(4):
            out[4 * w + k] = np.int64(word & np.uint64(0xFFFF))
            word >>= np.uint64(16)


@jit
def _grow(features: Array, options: Array, columns: Array, nominal: Array, max_nodes: int) -> tuple[Array, int, int]:
    """Grow a tree breadth first; returns the nodes, their number, and the number of rows predicted wrong.

    Args:
        features: uint8 (columns, rows).
        options: uint16 (rows, options), 1 where an option gives a row's label, else 0.
        columns: int64, the columns to split by, the plainest first.
        nominal: bool (columns,), columns that are also tested for equality.
    """
    rows = len(options)
    nodes = np.full((max_nodes + 2, 5), -1, np.int64)
    # `order` is a permutation of the rows in which each node's rows are contiguous; `spans` has their begin and end.
    order = np.arange(rows)
    spans = np.zeros((max_nodes + 2, 2), np.int64)
    spans[0, 1] = rows
    used, todo, errors = 1, 0, 0
    hist = np.zeros((VALUES, _WORDS), np.uint64)
    sizes = np.zeros(VALUES, np.int64)
    left = np.zeros(_WORDS, np.uint64)
    inside = np.zeros(4 * _WORDS, np.int64)
    while todo < used:
        node = todo
        todo += 1
        begin, end = spans[node, 0], spans[node, 1]
        totals = _sums(options, order[begin:end])
        nodes[node, 4] = _best_option(totals)
        missing = (end - begin) - totals[nodes[node, 4]]
        if missing == 0 or used + 2 > max_nodes:
            errors += missing
            continue
        node_rows = order[begin:end].copy()
        chosen = _contenders(options, node_rows, totals)
        hits = _packed_hits(options, node_rows, chosen)
        words = hits.shape[1]
        best_column, best_test, best_score = -1, 0, -1.0
        for column in columns:
            # Per feature value: its rows (sizes) and their hits of each option (hist); both are zeros between two columns.
            low, high = VALUES - 1, 0
            for r in range(end - begin):
                value = int(np.int64(features[column, node_rows[r]]))  # unsigned values would make floats of the bounds
                low, high = min(low, value), max(high, value)
                sizes[value] += 1
                for w in range(words):
                    hist[value, w] += hits[r, w]
            left[:words] = 0
            left_size = 0
            for value in range(low, high):
                if sizes[value] == 0:
                    continue
                left_size += sizes[value]
                for w in range(words):
                    left[w] += hist[value, w]
                _unpack(left, words, inside)
                score = _split_score(inside, left_size, chosen, totals, end - begin)
                # The first and thus plainest column wins a tie.
                if score > best_score + 1e-9:
                    best_column, best_test, best_score = column, value, score
                if nominal[column] and left_size > sizes[value]:
                    _unpack(hist[value], words, inside)
                    score = _split_score(inside, sizes[value], chosen, totals, end - begin)
                    if score > best_score + 1e-9:
                        best_column, best_test, best_score = column, VALUES + value, score
            hist[low : high + 1] = 0
            sizes[low : high + 1] = 0
        if best_column < 0:
            errors += missing
            continue
        split = begin
        for r in node_rows:
            if passes(features[best_column, r], best_test):
                order[split] = r
                split += 1
        place = split
        for r in node_rows:
            if not passes(features[best_column, r], best_test):
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
            node = nodes[node, 2] if passes(features[nodes[node, 0], r], nodes[node, 1]) else nodes[node, 3]
        option = nodes[node, 4]
        out[r] = option if option < 10 else features[option - 10, r]
    return out
