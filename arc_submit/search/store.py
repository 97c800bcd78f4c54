"""The store: all images of a search, in flat arrays that compiled code reads and writes.

An image is a place (y, x) and cells. A node is one image or a list of images of one example; equal images of one example share a node.
This module does not know operations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit

Array = npt.NDArray[Any]

CELLS, IMAGES, NODES, WORK, FULL = range(5)


class Store(NamedTuple):
    """Flat arrays.

    Attributes:
        cells: int8, the cells of all images, concatenated.
        images: int32 (images, 5): y, x, height, width, start in `cells`.
        nodes: int32 (nodes, 4): first image, number of images, 1 for a list or 0 for one image, example.
        table: int32, an open hash table of node numbers plus 1, 0 for a free slot; its length is a power of two.
        hashes: uint64 (nodes,).
        counters: int64 (5,): cells, images and nodes used, work done (cells touched), 1 if something did not fit.
    """

    cells: Array
    images: Array
    nodes: Array
    table: Array
    hashes: Array
    counters: Array


def make_store(cells: int, images: int, nodes: int) -> Store:
    """An empty store with the given capacities; the system allocates its memory page by page on first use."""
    return Store(
        cells=np.empty(cells, np.int8),
        images=np.empty((images, 5), np.int32),
        nodes=np.empty((nodes, 4), np.int32),
        table=make_hash_table(nodes),
        hashes=np.empty(nodes, np.uint64),
        counters=np.zeros(5, np.int64),
    )


def make_hash_table(entries: int) -> Array:
    """An empty hash table, int32, at most half full with so many entries; its length is a power of two."""
    return np.zeros(1 << int(np.ceil(np.log2(2 * entries))), np.int32)


@jit
def image_cells(store: Store, image: int) -> Grid:
    """The cells of an image: a view of shape (h, w)."""
    h, w, start = store.images[image, 2], store.images[image, 3], store.images[image, 4]
    return store.cells[start : start + h * w].reshape((h, w))


@jit
def push(store: Store, y: int, x: int, cells: Grid) -> bool:
    """Append an image; where it does not fit, mark the store full and return False."""
    h, w = cells.shape
    start, image = store.counters[CELLS], store.counters[IMAGES]
    if start + h * w > store.cells.size or image >= store.images.shape[0]:
        store.counters[FULL] = 1
        return False
    store.images[image, 0] = y
    store.images[image, 1] = x
    store.images[image, 2] = h
    store.images[image, 3] = w
    store.images[image, 4] = start
    source, target = cells.reshape(h * w), store.cells[start : start + h * w]
    for k in range(h * w):
        target[k] = source[k]
    store.counters[CELLS] = start + h * w
    store.counters[IMAGES] = image + 1
    return True


@jit
def drop(store: Store, first: int) -> None:
    """Remove every image from number `first` on."""
    if store.counters[IMAGES] > first:
        store.counters[CELLS] = store.images[first, 4]
        store.counters[IMAGES] = first


@jit
def commit(store: Store, first: int, is_list: int, example: int, blank_too: bool) -> int:
    """Make a node of the images from number `first` on, or find the node that has the same images and drop the new ones.

    Args:
        blank_too: whether the node may consist of blank images.

    Returns:
        the node, or -1 where there was no image, no painted cell (unless `blank_too`), or no room.
    """
    count = store.counters[IMAGES] - first
    if count < 1:
        return -1
    value = np.uint64(1469598103934665603) ^ np.uint64(example * 2 + is_list)
    prime = np.uint64(1099511628211)
    painted = blank_too
    for image in range(first, first + count):
        for k in range(4):
            value = (value ^ np.uint64(store.images[image, k] + 1000)) * prime
        start, size = store.images[image, 4], store.images[image, 2] * store.images[image, 3]
        cells = store.cells[start : start + size]
        # Eight cells at a time: one multiplication per cell would dominate the cost of a small operation.
        for k in range(0, size - 7, 8):
            word = np.uint64(0)
            for b in range(8):
                word |= np.uint64(cells[k + b]) << np.uint64(8 * b)
            value = (value ^ word) * prime
            value = value ^ (value >> np.uint64(29))
            painted = painted or word != 0
        for k in range(size - size % 8, size):
            value = (value ^ np.uint64(cells[k])) * prime
            painted = painted or cells[k] != 0
        value = value ^ (value >> np.uint64(29))
    if not painted:
        drop(store, first)
        return -1
    mask = store.table.size - 1
    slot = np.int64(value ^ (value >> np.uint64(32))) & mask
    while store.table[slot] > 0:
        node = store.table[slot] - 1
        # Equal 64-bit hashes of equal lengths count as equal images: the rare false match costs one program.
        if store.hashes[node] == value and store.nodes[node, 1] == count:
            drop(store, first)
            return int(node)
        slot = (slot + 1) & mask
    node = store.counters[NODES]
    if node >= store.nodes.shape[0]:
        store.counters[FULL] = 1
        drop(store, first)
        return -1
    store.table[slot] = node + 1
    store.hashes[node] = value
    store.nodes[node, 0] = first
    store.nodes[node, 1] = count
    store.nodes[node, 2] = is_list
    store.nodes[node, 3] = example
    store.counters[NODES] = node + 1
    return int(node)
