"""Stacking: outputs built from a few pieces laid over each other, found greedily with one bit per cell of the train outputs.

A piece is an image of the output's size in every example. Its painted cells are right or wrong for each train output; a stack is right
where, at every painted cell of an output, the topmost piece that paints there is right, and paints nothing else. Knows nothing
about where pieces come from.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.explore import Exploration
from arc_submit.search.jit import jit
from arc_submit.search.store import Array, Store

MAX_LAYERS = 8
MAX_TRIES = 150
WORTH = 40  # what a cell is worth in tenths of a step, so that among nearly equal pieces the cheap one is laid


@dataclass(frozen=True)
class Pieces:
    """Pieces in order of their cost.

    Attributes:
        states: int64 (pieces,), the state of the exploration each came from.
        costs: int64 (pieces,).
        right, wrong: uint64 (pieces, words), a bit per cell of all train outputs one after the other.
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
    """Pieces from the top to the bottom, the train pairs they solve and what they cost together.

    `predicted` is the share of the train pairs that the best stack (or the best single piece) found from the other pairs solves.
    """

    layers: tuple[int, ...]
    solved: tuple[bool, ...]
    cost: int
    predicted: float


@jit
def content_hashes(store: Store, exploration: Exploration, states: Array) -> Array:
    """uint64 (states,): equal for states whose images have the same cells in every example, wherever they lie."""
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
        target: int8, the cells of all train outputs one after the other.
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


def make_pieces(store: Store, exploration: Exploration, states: Array, outputs: list[Grid], most: int) -> Pieces:
    """The cheapest `most` different pieces among some states."""
    _, first = np.unique(content_hashes(store, exploration, states), return_index=True)
    states = states[np.sort(first)][:most]
    target = np.concatenate([grid.ravel() for grid in outputs]).astype(np.int8)
    starts = np.cumsum([0] + [grid.size for grid in outputs]).astype(np.int64)
    right, wrong = piece_bits(store, exploration, states, target, starts)
    masks = np.stack([_bits((np.arange(target.size) >= a) & (np.arange(target.size) < b)) for a, b in itertools.pairwise(starts)])
    return Pieces(states, exploration.info[states, 0].astype(np.int64), right, wrong, _bits(target != 0), masks)


def _bits(flags: Array) -> Array:
    """uint64 words from booleans, bit i of word w for flag 64 w + i."""
    padded = np.zeros((flags.size + 63) // 64 * 64, dtype=np.uint8)
    padded[: flags.size] = flags
    words: Array = np.packbits(padded, bitorder="little").view(np.uint64)
    return words


@jit
def _ones(word: Any) -> Any:
    """How many bits of a uint64 are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@jit
def greedy(right: Array, wrong: Array, wanted: Array, costs: Array, mask: Array, first_rank: int, worth: int, layers: Array) -> int:
    """Fill the wanted cells from the top layer down.

    Args:
        mask: uint64 (words,), the cells that count: those of the train pairs to be solved.
        first_rank: the top layer is the piece of this rank by gain (0 for the best), the others are the best each time.
        worth: what one more cell is worth in tenths of a step.
        layers: int64, receives the indices of the pieces chosen, top first; its length bounds the layers.

    Returns:
        how many layers were chosen, or -1 where wanted cells stay open.
    """
    pieces, words = right.shape
    open_cells = mask.copy()
    usable = np.ones(pieces, np.bool_)
    skipped = np.zeros(pieces, np.bool_)
    for depth in range(layers.size):
        remaining = 0
        for w in range(words):
            remaining += _ones(open_cells[w] & wanted[w])
        if remaining == 0:
            return depth
        best = -1
        for attempt in range(first_rank + 1 if depth == 0 else 1):
            best, best_score = -1, 0
            for k in range(pieces):
                if not usable[k] or skipped[k]:
                    continue
                gain = 0
                for w in range(words):
                    if wrong[k, w] & open_cells[w]:
                        gain = -1
                        break
                    gain += _ones(right[k, w] & open_cells[w])
                score = gain * worth - costs[k] if gain > 0 else 0
                if gain > 0 and (best < 0 or score > best_score):
                    best, best_score = k, score
            if best < 0:
                return -1
            if depth == 0 and attempt < first_rank:
                skipped[best] = True
        layers[depth] = best
        skipped[:] = False
        for w in range(words):
            open_cells[w] &= ~(right[best, w] | wrong[best, w])
    for w in range(words):
        if open_cells[w] & wanted[w]:
            return -1
    return int(layers.size)


@jit
def solved_pairs(right: Array, wrong: Array, wanted: Array, pair_masks: Array, layers: Array) -> Array:
    """bool (train pairs,): which outputs a stack makes exactly."""
    out = np.zeros(pair_masks.shape[0], np.bool_)
    for pair in range(pair_masks.shape[0]):
        good = True
        for w in range(wanted.size):
            open_cells = pair_masks[pair, w]
            for k in layers:
                if wrong[k, w] & open_cells:
                    good = False
                open_cells &= ~right[k, w]
            if open_cells & wanted[w]:
                good = False
        out[pair] = good
    return out


@jit
def single_solves(right: Array, wrong: Array, wanted: Array, pair_masks: Array) -> Array:
    """bool (pieces, train pairs): which outputs each piece makes alone."""
    out = np.zeros((right.shape[0], pair_masks.shape[0]), np.bool_)
    for k in range(right.shape[0]):
        for pair in range(pair_masks.shape[0]):
            good = True
            for w in range(wanted.size):
                if pair_masks[pair, w] & (wrong[k, w] | (wanted[w] & ~right[k, w])):
                    good = False
                    break
            out[k, pair] = good
    return out


def find_stacks(pieces: Pieces, singles: int = 12, word_limit: int = 1_000_000_000) -> list[Stack]:
    """Stacks that solve at least one train pair: single pieces first, then greedy ones for all pairs and for some.

    Args:
        singles: how many single pieces to keep for each number of pairs solved.
        word_limit: bound on the work, in words of bits looked at; later tries are left out beyond it.
    """
    if pieces.states.size == 0:
        return []
    pairs = len(pieces.pair_masks)
    stacks = []
    alone = single_solves(pieces.right, pieces.wrong, pieces.wanted, pieces.pair_masks)
    predicted = _predicted_alone(alone)
    for solved in range(pairs, 0, -1):
        for k in np.flatnonzero(alone.sum(axis=1) == solved)[:singles]:
            stacks.append(Stack((int(k),), tuple(map(bool, alone[k])), int(pieces.costs[k]), predicted))
    per_try = pieces.right.size * (MAX_LAYERS // 2)
    laid = []
    predicted_pairs = 0
    seen = set()
    for mask, rank, worth, left_out in _tries(pieces.pair_masks)[: min(MAX_TRIES, max(1, word_limit // per_try))]:
        layers = np.zeros(MAX_LAYERS, np.int64)
        depth = greedy(pieces.right, pieces.wrong, pieces.wanted, pieces.costs, mask, rank, worth, layers)
        if depth >= 1 and (left_out >= 0 or tuple(layers[:depth]) not in seen):
            seen.add(tuple(layers[:depth]))
            good = solved_pairs(pieces.right, pieces.wrong, pieces.wanted, pieces.pair_masks, layers[:depth])
            predicted_pairs += int(left_out >= 0 and good[left_out])
            laid.append((layers[:depth], good))
    for chosen, good in laid:
        # A layer costs more than a step of a program: it is a free choice among all pieces.
        cost = int(pieces.costs[chosen].sum()) + 10 * (len(chosen) - 1)
        stacks.append(Stack(tuple(map(int, chosen)), tuple(map(bool, good)), cost, predicted_pairs / pairs))
    return stacks


def _tries(masks: Array) -> list[tuple[Array, int, int, int]]:
    """(cells that count, rank of the top layer, worth of a cell, the pair left out or -1), the most promising first.

    What explains only some pairs is worth laying too: pieces that fit by chance are fewer there, and the other pairs show what it is worth.
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
    """The share of the train pairs that the cheapest piece which makes all the others makes too."""
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


def lay(store: Store, exploration: Exploration, pieces: Pieces, stack: Stack, example: int) -> Grid:
    """The grid that a stack makes in one example, int8 (h, w), 0 where nothing is painted."""
    out = None
    for k in stack.layers:
        cells = node_cells(store, int(exploration.states[pieces.states[k], example]))
        out = cells.copy() if out is None else np.where(out == 0, cells, out)
    assert out is not None, "a stack has at least one layer"
    return out.astype(np.int8)
