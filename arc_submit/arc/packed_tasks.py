"""Training tasks packed into flat arrays, which any number of processes can map from files. Does not know where tasks come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arc_submit.arc.files import read_json
from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask
from arc_submit.errors import DataError


@dataclass(frozen=True, eq=False)
class PackedTasks:
    """Many tasks in a few flat arrays, which any number of processes can map from files.

    Attributes:
        ids: of the tasks.
        cells: int8, all grids' cells row by row: each pair's input and output, then the wrong outputs.
        offsets: int64, (grids + 1,): index of each grid's first cell.
        shapes: uint8, (grids, 2): height and width.
        first_pair: int64, (tasks + 1,): each task's first pair.
        wrong_of: int64, (wrong outputs,): the pair that each belongs to.
    """

    ids: list[str]
    cells: npt.NDArray[np.int8]
    offsets: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.uint8]
    first_pair: npt.NDArray[np.int64]
    wrong_of: npt.NDArray[np.int64]

    @property
    def pair_count(self) -> int:
        """The number of pairs of all tasks."""
        return int(self.first_pair[-1])

    def grid(self, number: int) -> Grid:
        """A grid, as a view of the cells."""
        height, width = self.shapes[number]
        return self.cells[self.offsets[number] : self.offsets[number + 1]].reshape(height, width)

    def pair(self, number: int) -> Pair:
        """A pair by its number among all pairs."""
        return Pair(self.grid(2 * number), self.grid(2 * number + 1))

    def wrong(self, number: int) -> Grid:
        """A wrong output by its number."""
        return self.grid(2 * self.pair_count + number)

    def tasks(self) -> Iterator[TrainingTask]:
        """All tasks, without their wrong outputs."""
        for number, name in enumerate(self.ids):
            yield TrainingTask(name, tuple(map(self.pair, range(int(self.first_pair[number]), int(self.first_pair[number + 1])))))

    def task_of(self, pair: int) -> int:
        """The number of the task that a pair belongs to."""
        return int(np.searchsorted(self.first_pair, pair, side="right")) - 1

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files and the ids as JSON.

        Raises:
            DataError: where they cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in _ARRAYS:
                np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
            (folder / "ids.json").write_text(json.dumps(self.ids), encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{folder}: the packed tasks cannot be written ({error}); free some disk space or give another folder"
            ) from None


_ARRAYS = ("cells", "offsets", "shapes", "first_pair", "wrong_of")


def pack_tasks(tasks: Iterable[TrainingTask]) -> PackedTasks:
    """The tasks one after the other; the iterable is consumed one task at a time."""
    ids: list[str] = []
    cells, wrong_cells = bytearray(), bytearray()
    shapes, wrong_shapes = bytearray(), bytearray()  # bytes, because tuples of millions of grids would not fit in memory
    first_pair, wrong_of = [0], []
    for task in tasks:
        ids.append(task.id)
        for pair in task.pairs:
            for grid in (pair.input, pair.output):
                cells += grid.tobytes()
                shapes += bytes(grid.shape)
        for pair_index, grid in task.wrong:
            wrong_cells += grid.tobytes()
            wrong_shapes += bytes(grid.shape)
            wrong_of.append(first_pair[-1] + pair_index)
        first_pair.append(first_pair[-1] + len(task.pairs))
    sizes = np.frombuffer(shapes + wrong_shapes, dtype=np.uint8).reshape(-1, 2)
    cells += wrong_cells
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[:, 0].astype(np.int64) * sizes[:, 1])])
    packed = np.frombuffer(cells, dtype=np.int8)
    return PackedTasks(ids, packed, offsets, sizes, np.array(first_pair, np.int64), np.array(wrong_of, np.int64))


def open_packed(folder: Path) -> PackedTasks:
    """The packed tasks in a folder, mapped into memory: pages are read on access and shared between processes.

    Raises:
        DataError: where the folder holds none.
    """
    try:
        arrays = [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in _ARRAYS]
        return PackedTasks(read_json(folder / "ids.json"), *arrays)
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"{folder}: not packed tasks ({error}); remove the folder, it is written again") from None
