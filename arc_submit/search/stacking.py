"""Stacking: outputs built from a few pieces on top of each other, found greedily with one bit per cell of the train outputs.

A piece is an image of the output's size in every example. Each of its painted cells is right or wrong for a train output. A stack is right
where, at every painted cell of an output, the topmost piece that paints there is right, and where it paints nothing else. This module does
not know the origin of pieces.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.explore import Exploration, table_costs
from arc_submit.search.jit import jit
from arc_submit.search.operations import TABLE
from arc_submit.search.store import Array, Store

MAX_LAYERS = 8
MAX_TRIES = 150
WORTH = 40  # the value of a cell in tenths of a step, so that the cheaper one of nearly equal pieces is chosen


class Pieces(NamedTuple):
    """Pieces in order of their cost.

    Attributes:
        states: int64 (pieces,), the state of the exploration that each comes from.
        costs: int64 (pieces,).
        right, wrong: uint64 (pieces, words), a bit per cell of all train outputs, concatenated.
        wanted: uint64 (words,), the painted cells of the train outputs.
        pair_masks: uint64 (train pairs, words), the cells of each train output.
    """

    states: Array
    costs: Array
    right: Array
    wrong: Array
    wanted: Array
    pair_masks: Array


@dataclass(frozen=True)
class Stack:
    """Pieces on top of each other.

    Attributes:
        layers: indices of pieces, top first.
        solved: for each train pair, whether the stack gives its output.
        cost: in tenths of a step.
        predicted: share of the train pairs solved by the best stack (or the best single piece) found from the other pairs.
    """

    layers: tuple[int, ...]
    solved: tuple[bool, ...]
    cost: int
    predicted: float


@jit
def content_hashes(store: Store, exploration: Exploration, states: Array) -> Array:
    """uint64 (states,): equal for states whose images have the same cells in every example, at any place."""
    out = np.empty(states.size, np.uint64)
    for k in range(states.size):
        value = np.uint64(1469598103934665603)
        for node in exploration.states[states[k]]:
            image = store.nodes[node, 0]
            start = store.images[image, 4]
            for i in range(start, start + store.images[image, 2] * store.images[image, 3]):
                value = (value ^ np.uint64(store.cells[i])) * np.uint64(1099511628211)
            value = value ^ (value >> np.uint64(29))
        out[k] = value
    return out


@jit
def piece_bits(store: Store, exploration: Exploration, states: Array, target: Array, starts: Array) -> tuple[Array, Array]:
    """The right and wrong bits of pieces.

    Args:
        states: int64 (pieces,).
        target: int8, the cells of all train outputs, concatenated.
        starts: int64 (train pairs + 1,), where each output begins in `target`.
    """
    words = (target.size + 63) // 64
    right, wrong = np.zeros((states.size, words), np.uint64), np.zeros((states.size, words), np.uint64)
    for k in range(states.size):
        for pair in range(starts.size - 1):
            image = store.nodes[exploration.states[states[k], pair], 0]
            source = store.images[image, 4]
            for i in range(starts[pair + 1] - starts[pair]):
                value = store.cells[source + i]
                if value != 0:
                    bit = starts[pair] + i
                    if value == target[bit]:
                        right[k, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
                    else:
                        wrong[k, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
    return right, wrong


def make_pieces(store: Store, exploration: Exploration, states: Array, outputs: list[Grid], limit: int) -> Pieces:
    """The `limit` different pieces with the simplest programs among some states."""
    costs = table_costs(exploration, TABLE)
    states = states[np.argsort(costs[states], kind="stable")]
    _, first = np.unique(content_hashes(store, exploration, states), return_index=True)
    states = states[np.sort(first)][:limit]
    target = np.concatenate([grid.ravel() for grid in outputs]).astype(np.int8)
    starts = np.cumsum([0] + [grid.size for grid in outputs]).astype(np.int64)
    right, wrong = piece_bits(store, exploration, states, target, starts)
    masks = np.stack([_to_words((np.arange(target.size) >= a) & (np.arange(target.size) < b)) for a, b in itertools.pairwise(starts)])
    return Pieces(states, costs[states], right, wrong, _to_words(target != 0), masks)


def _to_words(flags: Array) -> Array:
    """uint64 words from booleans, bit i of word w for flag 64 w + i."""
    padded = np.zeros((flags.size + 63) // 64 * 64, dtype=np.uint8)
    padded[: flags.size] = flags
    words: Array = np.packbits(padded, bitorder="little").view(np.uint64)
    return words


@jit
def _popcount(word: Any) -> Any:
    """The number of set bits of a uint64."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@jit
def greedy(pieces: Pieces, mask: Array, first_rank: int, worth: int, layers: Array) -> int:
    """Cover the wanted cells from the top layer down, each time with the piece of the highest gain that paints no open cell wrong.

    Args:
        mask: uint64 (words,), the cells that count: those of the train pairs to be solved.
        first_rank: the rank by gain of the top layer (0 for the best piece); the other layers are the best ones.
        worth: the value of one more cell in tenths of a step.
        layers: int64, receives the indices of the chosen pieces, top first; its length bounds the layers.

    Returns:
        the number of layers, or -1 where wanted cells stay uncovered.
    """
    count, words = pieces.right.shape
    open_cells = mask.copy()
    skipped = np.zeros(count, np.bool_)
    for depth in range(layers.size):
        remaining = 0
        for w in range(words):
            remaining += _popcount(open_cells[w] & pieces.wanted[w])
        if remaining == 0:
            return depth
        best = -1
        # The top layer of a higher rank is found by skipping the better pieces one after the other.
        for rank in range(first_rank + 1 if depth == 0 else 1):
            best, best_score = -1, 0
            for k in range(count):
                if skipped[k]:
                    continue
                gain = 0
                for w in range(words):
                    if pieces.wrong[k, w] & open_cells[w]:
                        gain = -1
                        break
                    gain += _popcount(pieces.right[k, w] & open_cells[w])
                score = gain * worth - pieces.costs[k] if gain > 0 else 0
                if gain > 0 and (best < 0 or score > best_score):
                    best, best_score = k, score
            if best < 0:
                return -1
            if depth == 0 and rank < first_rank:
                skipped[best] = True
        layers[depth] = best
        skipped[:] = False
        for w in range(words):
            open_cells[w] &= ~(pieces.right[best, w] | pieces.wrong[best, w])
    for w in range(words):
        if open_cells[w] & pieces.wanted[w]:
            return -1
    return int(layers.size)


@jit
def solved_pairs(pieces: Pieces, layers: Array) -> Array:
    """bool (train pairs,): which outputs a stack gives exactly."""
    out = np.zeros(pieces.pair_masks.shape[0], np.bool_)
    for pair in range(out.size):
        good = True
        for w in range(pieces.wanted.size):
            open_cells = pieces.pair_masks[pair, w]
            for k in layers:
                if pieces.wrong[k, w] & open_cells:
                    good = False
                open_cells &= ~pieces.right[k, w]
            if open_cells & pieces.wanted[w]:
                good = False
        out[pair] = good
    return out


@jit
def single_solves(pieces: Pieces) -> Array:
    """bool (pieces, train pairs): which outputs each piece gives alone."""
    out = np.zeros((pieces.right.shape[0], pieces.pair_masks.shape[0]), np.bool_)
    for k in range(out.shape[0]):
        for pair in range(out.shape[1]):
            good = True
            for w in range(pieces.wanted.size):
                if pieces.pair_masks[pair, w] & (pieces.wrong[k, w] | (pieces.wanted[w] & ~pieces.right[k, w])):
                    good = False
                    break
            out[k, pair] = good
    return out


def find_stacks(pieces: Pieces, singles: int = 12, word_limit: int = 1_000_000_000) -> list[Stack]:
    """Stacks that solve at least one train pair: single pieces first, then greedy ones for all pairs and for some.

    Args:
        singles: the number of single pieces for each number of solved pairs.
        word_limit: bound on the work in words of bits; the least promising tries are left out beyond it.
    """
    if pieces.states.size == 0:
        return []
    pairs = len(pieces.pair_masks)
    stacks = []
    alone = single_solves(pieces)
    predicted = _predicted_alone(alone)
    for solved in range(pairs, 0, -1):
        for k in np.flatnonzero(alone.sum(axis=1) == solved)[:singles]:
            stacks.append(Stack((int(k),), tuple(map(bool, alone[k])), int(pieces.costs[k]), predicted))
    words_per_try = pieces.right.size * (MAX_LAYERS // 2)
    found = []
    predicted_pairs = 0
    seen = set()
    for mask, rank, worth, left_out in _tries(pieces.pair_masks)[: min(MAX_TRIES, max(1, word_limit // words_per_try))]:
        layers = np.zeros(MAX_LAYERS, np.int64)
        depth = greedy(pieces, mask, rank, worth, layers)
        chosen = tuple(map(int, layers[: max(depth, 0)]))
        if chosen and (left_out >= 0 or chosen not in seen):
            seen.add(chosen)
            good = solved_pairs(pieces, layers[:depth])
            predicted_pairs += int(left_out >= 0 and good[left_out])
            found.append((chosen, good))
    for chosen, good in found:
        # A layer costs more than a step of a program: it is a free choice among all pieces.
        cost = int(pieces.costs[list(chosen)].sum()) + 10 * (len(chosen) - 1)
        stacks.append(Stack(chosen, tuple(map(bool, good)), cost, predicted_pairs / pairs))
    return stacks


def _tries(masks: Array) -> list[tuple[Array, int, int, int]]:
    """(Cells that count, rank of the top layer, worth of a cell, the pair left out or -1), the most promising first.

    Stacks for some pairs are tried too: fewer pieces fit them by chance, and the other pairs test them.
    """
    every = np.bitwise_or.reduce(masks, axis=0)
    all_but_one = [every & ~mask for mask in masks] if len(masks) > 2 else []
    tries = [(every, 0, WORTH, -1)] + [(mask, 0, WORTH, k) for k, mask in enumerate(all_but_one)]
    tries += [(every, rank, WORTH, -1) for rank in range(1, 4)]
    tries += [(mask, rank, WORTH, -1) for rank in range(2) for mask in masks]
    tries += [(every, rank, worth, -1) for worth in (5, 1, 400) for rank in range(4)]
    tries += [(every, rank, WORTH, -1) for rank in range(4, 16)]
    tries += [(mask, rank, WORTH, -1) for rank in range(1, 4) for mask in all_but_one]
    tries += [(a | b, rank, WORTH, -1) for rank in range(2) for a, b in itertools.combinations(masks, 2)]
    tries += [(mask, rank, WORTH, -1) for rank in range(2, 8) for mask in masks]
    return tries


def _predicted_alone(alone: Array) -> float:
    """The share of the train pairs that are solved by the cheapest piece that solves all the others."""
    pairs, right = len(alone[0]), 0
    for k in range(pairs):
        others = np.flatnonzero(np.delete(alone, k, axis=1).all(axis=1))
        right += int(pairs > 1 and len(others) > 0 and bool(alone[others[0], k]))
    return right / pairs


def node_cells(store: Store, node: int) -> Grid:
    """The cells of a node that is one image: a view of shape (h, w)."""
    _, _, h, w, start = store.images[store.nodes[node, 0]]
    cells: Grid = store.cells[start : start + h * w].reshape(h, w)
    return cells


def render(store: Store, exploration: Exploration, pieces: Pieces, stack: Stack, example: int) -> Grid:
    """The grid that a stack gives in one example, int8 (h, w), 0 where nothing is painted."""
    out, *below = [node_cells(store, int(exploration.states[pieces.states[k], example])) for k in stack.layers]
    for cells in below:
        out = np.where(out == 0, cells, out)
    return out.astype(np.int8)
