"""The painter's network: reads a picture cell by cell and gives the probabilities of the next slot of its drawing.

The encoder mixes each cell with its neighbours, its row and its column. The decoder is a transformer over the slots
written so far. It is made to go on beyond the number of shapes that it was trained on: no position is absolute. A slot sees the slots of
its own shape and of the WINDOW shapes before it, by their distance. It sees cells by their place relative to the shape's first cell (to
that of the shape before, while the first cell is not yet written), and coordinates enter as differences. Rows and columns are chosen by
pointing at cells. Does not know texts, tasks or training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from arc_submit.arc.grid import COLOURS, MAX_SIDE
from arc_submit.programs.painter.shapes import KINDS
from arc_submit.programs.painter.tokens import COLOUR, COLUMN, COLUMN2, KIND, KIND_HAS_COLUMN2, KIND_HAS_ROW2, ROW, ROW2, SLOTS

WINDOW = 3  # shapes before its own that a slot sees; training on four or more shapes shows every distance
_CELL_INPUTS = COLOURS + 4  # the colour, and whether each of four neighbours has it too
_STEPS = 2 * MAX_SIDE + 2  # differences of coordinates: -30..30, and none
_NONE = _STEPS - 1
_GROUPS = 4  # of a cell's channels, along rows and columns


@dataclass(frozen=True)
class Size:
    """Widths of a network: of a cell, of a slot, heads, blocks of the encoder, layers of the decoder."""

    cell: int = 32
    slot: int = 64
    heads: int = 4
    blocks: int = 3
    layers: int = 2


@dataclass
class Cache:
    """What later slots need of earlier ones: keys and values of each layer, the latest shapes only."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)


class Block(nn.Module):
    """A cell from its neighbours, its whole row and its whole column.

    Along rows and columns each group of channels has one weight for each distance: far cheaper than a convolution with its own weights
    for each channel.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.near = nn.Linear(5 * width, width)
        self.along_rows = nn.Parameter(0.02 * torch.randn(_GROUPS, _STEPS))
        self.along_columns = nn.Parameter(0.02 * torch.randn(_GROUPS, _STEPS))
        self.out = nn.Linear(width, width)

    def forward(self, cells: Tensor) -> Tensor:
        """Cells (samples, height, width, channels) to as many."""
        y = self.norm(cells)
        padded = functional.pad(y, (0, 0, 1, 1, 1, 1))
        around = (y, padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        mixed = self.near(torch.cat(around, -1))
        groups = y.unflatten(-1, (_GROUPS, -1))
        rows, columns = torch.arange(y.shape[1]), torch.arange(y.shape[2])
        of_column = self.along_columns[:, rows[:, None] - rows + MAX_SIDE]
        of_row = self.along_rows[:, columns[:, None] - columns + MAX_SIDE]
        mixed = mixed + torch.einsum("gij,bjwgc->biwgc", of_column, groups).flatten(-2)
        mixed = mixed + torch.einsum("gij,bhjgc->bhigc", of_row, groups).flatten(-2)
        changed: Tensor = cells + self.out(functional.gelu(mixed))
        return changed


class Layer(nn.Module):
    """One layer of the decoder: slots before, cells, and a slot by itself."""

    def __init__(self, size: Size):
        super().__init__()
        self.heads = size.heads
        self.norms = nn.ModuleList([nn.LayerNorm(size.slot) for _ in range(3)])
        self.own = nn.Linear(size.slot, 3 * size.slot)
        self.own_out = nn.Linear(size.slot, size.slot)
        self.distance = nn.Parameter(torch.zeros(size.heads, WINDOW + 1, SLOTS, SLOTS))  # shapes back, slot that sees, slot seen
        self.ask = nn.Linear(size.slot, size.slot)
        self.cell_keys = nn.Linear(size.cell, 2 * size.slot)
        self.cells_out = nn.Linear(size.slot, size.slot)
        self.row_bias = nn.Parameter(0.02 * torch.randn(SLOTS, _STEPS, size.heads))
        self.column_bias = nn.Parameter(0.02 * torch.randn(SLOTS, _STEPS, size.heads))
        self.mlp = nn.Sequential(nn.Linear(size.slot, 4 * size.slot), nn.GELU(), nn.Linear(4 * size.slot, size.slot))

    def _split(self, x: Tensor) -> Tensor:
        """(samples, n, width) to (samples, heads, n, width of a head)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def see_slots(
        self, x: Tensor, shape_of: Tensor, slot_of: Tensor, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of slots to themselves and the slots before; returns the change of x and all keys and values.

        Args:
            x: (samples, n, width); shape_of, slot_of: (n + earlier,) of all slots whose keys there are, the earlier first.
            before: keys and values of the earlier slots, (samples, heads, earlier, width of a head).
        """
        query, key, value = map(self._split, self.own(self.norms[0](x)).chunk(3, -1))
        if before is not None:
            key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
        n = x.shape[1]
        back = shape_of[-n:, None] - shape_of[None, :]
        places = torch.arange(len(shape_of))
        hidden = (back > WINDOW) | (places[None, :] > places[-n:, None])
        bias = self.distance[:, back.clamp(0, WINDOW), slot_of[-n:, None], slot_of[None, :]].masked_fill(hidden, -torch.inf)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.own_out(seen.transpose(1, 2).flatten(2)), key, value

    def see_cells(self, x: Tensor, cells: tuple[Tensor, Tensor], slot_of: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Attention of slots to cells.

        Args:
            cells: keys and values (samples or 1, heads, height * width, width of a head).
            rows, columns: differences of each cell row and column to each slot's place, as indices: (samples, n, height), (.., width).
        """
        query = self._split(self.ask(self.norms[1](x)))
        by_row = self.row_bias[slot_of[:, None], rows]  # (samples, n, height, heads)
        by_column = self.column_bias[slot_of[:, None], columns]
        bias = (by_row[:, :, :, None] + by_column[:, :, None]).flatten(2, 3).permute(0, 3, 1, 2)
        keys, values = cells
        samples, _, n, width = query.shape
        if len(keys) == 1:  # one picture for all samples: one product, and no copy of the picture for each
            query = query.transpose(0, 1).flatten(1, 2)[None]
            bias = bias.transpose(0, 1).flatten(1, 2)[None]
        weights = (query @ keys.transpose(-1, -2) * width**-0.5 + bias).softmax(-1)
        seen = weights @ values
        if len(keys) == 1:
            seen = seen[0].unflatten(1, (samples, n)).transpose(0, 1)
        change: Tensor = self.cells_out(seen.transpose(1, 2).flatten(2))
        return change

    def think(self, x: Tensor) -> Tensor:
        """The change of slots (samples, n, width), each by itself."""
        change: Tensor = self.mlp(self.norms[2](x))
        return change

    def cell_memory(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of cells (samples, height * width, cell width)."""
        keys, values = self.cell_keys(cells).chunk(2, -1)
        return self._split(keys), self._split(values)


@dataclass(frozen=True)
class Read:
    """A picture as the decoder needs it.

    Attributes:
        cells: (samples, height, width, cell width).
        memory: keys and values of each layer.
        pointers: (samples, height, width, slot width), what rows and columns are chosen by.
    """

    cells: Tensor
    memory: list[tuple[Tensor, Tensor]]
    pointers: Tensor

    def rows(self, kept: Tensor) -> Read:
        """Those of the samples that are True in `kept`, bool (samples,); a picture that all samples share stays."""
        if len(self.cells) == 1:
            return self
        return Read(self.cells[kept], [(keys[kept], values[kept]) for keys, values in self.memory], self.pointers[kept])


class PainterNetwork(nn.Module):
    """See the module's text. Samples of one call have pictures of one size."""

    def __init__(self, size: Size | None = None):
        super().__init__()
        self.size = size = size or Size()
        self.cell_in = nn.Linear(_CELL_INPUTS, size.cell)
        self.blocks = nn.ModuleList([Block(size.cell) for _ in range(size.blocks)])
        self.cell_norm = nn.LayerNorm(size.cell)
        self.at_place = nn.Linear(size.cell, size.slot)
        self.slot_in = nn.Embedding(SLOTS, size.slot)
        self.step_in = nn.Embedding(SLOTS * _STEPS, size.slot)  # a coordinate's difference, by slot; kinds and colours in the same table
        self.layers = nn.ModuleList([Layer(size) for _ in range(size.layers)])
        self.out_norm = nn.LayerNorm(size.slot)
        self.pointer_keys = nn.Linear(size.cell, size.slot)
        self.pointer_asks = nn.Linear(size.slot, SLOTS * size.slot)
        self.pointer_rows = nn.Parameter(torch.zeros(SLOTS, _STEPS))
        self.pointer_columns = nn.Parameter(torch.zeros(SLOTS, _STEPS))
        self.end_out = nn.Linear(size.slot, 1)
        self.kind_out = nn.Linear(size.slot, len(KINDS))
        self.colour_out = nn.Linear(size.slot, COLOURS)

    def decoder(self) -> list[Layer]:
        """The decoder's layers, from first to last."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def read(self, pictures: Tensor) -> Read:
        """Encode pictures, int64 (samples, height, width)."""
        one_hot = functional.one_hot(pictures, COLOURS).float()
        padded = functional.pad(pictures, (1, 1, 1, 1), value=-1)
        neighbours = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        equal = torch.stack([one == pictures for one in neighbours], -1).float()
        cells = self.cell_in(torch.cat([one_hot, equal], -1))
        for block in self.blocks:
            cells = block(cells)
        cells = self.cell_norm(cells)
        flat = cells.flatten(1, 2)
        return Read(cells, [layer.cell_memory(flat) for layer in self.decoder()], self.pointer_keys(cells))

    def hidden(self, read: Read, slots: Tensor, only: int | None = None, cache: Cache | None = None) -> Tensor:
        """Vectors from which slots are foretold, each from the slots before it, (samples, n, slot width).

        Args:
            slots: int64 (samples, shapes, SLOTS), the shapes written so far with the one that is being written.
            only: the one slot to foretell, counting all slots; needs a cache of those before. None: all of them.
            cache: of the slots before; is extended, and forgets what is out of the window.
        """
        samples, shapes = slots.shape[:2]
        height, width = read.cells.shape[1:3]
        total = SLOTS * shapes
        numbers = torch.arange(total)
        shape_of, slot_of = numbers // SLOTS, numbers % SLOTS
        # The shape before, or a place left of the first cell.
        start = torch.zeros(samples, 1, SLOTS, dtype=torch.long)
        start[:, :, COLUMN] = -1
        earlier = torch.cat([start, slots[:, :-1]], 1)
        row_now, column_now = slots[..., ROW], slots[..., COLUMN]
        place_row = torch.stack([earlier[..., ROW], row_now, row_now, row_now, row_now, row_now], -1).flatten(1)
        before = earlier[..., COLUMN]
        place_column = torch.stack([before, before, column_now, column_now, column_now, column_now], -1).flatten(1)
        steps = self._previous_steps(slots, earlier)
        part = slice(None) if only is None else slice(only, only + 1)
        shape_of, slot_of, steps = shape_of[part], slot_of[part], steps[:, part]
        place_row, place_column = place_row[:, part], place_column[:, part]
        table = torch.remainder(slot_of - 1, SLOTS) * _STEPS
        seen = read.cells.expand(samples, -1, -1, -1)
        here = seen[torch.arange(samples)[:, None], place_row, place_column.clamp_min(0)]
        x = self.slot_in(slot_of) + self.step_in(table + steps) + self.at_place(here)
        rows = torch.arange(height) - place_row[..., None] + MAX_SIDE
        columns = torch.arange(width) - place_column[..., None] + MAX_SIDE
        for i, layer in enumerate(self.decoder()):
            known = None
            shape_all, slot_all = shape_of, slot_of
            if cache is not None and only is not None and i in cache.keys:
                known = cache.keys[i], cache.values[i]
                old = torch.arange(only - known[0].shape[2], only)
                shape_all, slot_all = torch.cat([old // SLOTS, shape_of]), torch.cat([old % SLOTS, slot_of])
            change, keys, values = layer.see_slots(x, shape_all, slot_all, known)
            if cache is not None:
                cache.keys[i], cache.values[i] = keys[:, :, -SLOTS * (WINDOW + 1) :], values[:, :, -SLOTS * (WINDOW + 1) :]
            x = x + change
            x = x + layer.see_cells(x, read.memory[i], slot_of, rows, columns)
            x = x + layer.think(x)
        found: Tensor = self.out_norm(x)
        return found

    @staticmethod
    def _previous_steps(slots: Tensor, earlier: Tensor) -> Tensor:
        """For each slot, the slot before it as an index of the table of steps, (samples, shapes * SLOTS)."""
        first = torch.zeros(earlier.shape[:2], dtype=torch.bool)
        first[:, 0] = True
        ends = (earlier[..., COLUMN2] - earlier[..., COLUMN] + MAX_SIDE).masked_fill(first, _NONE)
        rows = slots[..., ROW] - earlier[..., ROW] + MAX_SIDE
        columns = slots[..., COLUMN] - earlier[..., COLUMN] + MAX_SIDE
        heights = slots[..., ROW2] - slots[..., ROW] + MAX_SIDE
        # In the order of the slots that they stand before.
        return torch.stack([ends, rows, columns, slots[..., KIND], slots[..., COLOUR], heights], -1).flatten(1)

    def foretell_row(self, read: Read, hidden: Tensor, place: Tensor) -> Tensor:
        """Logits of the first row, and behind them of the end of the drawing, (samples, n, height + 1).

        Args:
            hidden: (samples, n, slot width); place: first row and column of the shape before, int64 (samples, n, 2).
        """
        height, width = read.pointers.shape[1:3]
        scores = self._point(hidden, ROW, read.pointers.flatten(1, 2)).reshape(*hidden.shape[:2], height, width)
        rows = self.pointer_rows[ROW][torch.arange(height) - place[..., :1] + MAX_SIDE]
        columns = self.pointer_columns[ROW][torch.arange(width) - place[..., 1:] + MAX_SIDE]
        by_row = (scores + columns[..., None, :]).logsumexp(-1) + rows
        return torch.cat([by_row, self.end_out(hidden)], -1)

    def foretell_along(self, read: Read, hidden: Tensor, slot: int, fixed: Tensor, origin: Tensor) -> Tensor:
        """Logits of a row or a column, by the cells of one column or row, (samples, n, height or width).

        Args:
            slot: COLUMN, ROW2 or COLUMN2.
            fixed: the row (for COLUMN and COLUMN2) or the column (ROW2) whose cells are pointed at, int64 (samples, n).
            origin: the coordinate from which differences count, int64 (samples, n).
        """
        samples = len(hidden)
        pointers = read.pointers.expand(samples, -1, -1, -1)
        if slot == ROW2:
            pointers = pointers.transpose(1, 2)
        line = pointers[torch.arange(samples)[:, None], fixed]  # (samples, n, side, width)
        asks = self._ask(hidden, slot)
        bias = self.pointer_rows if slot == ROW2 else self.pointer_columns
        return (line @ asks[..., None])[..., 0] + bias[slot][torch.arange(line.shape[2]) - origin[..., None] + MAX_SIDE]

    def _ask(self, hidden: Tensor, slot: int) -> Tensor:
        width = self.size.slot
        part = slice(slot * width, (slot + 1) * width)
        asks: Tensor = functional.linear(hidden, self.pointer_asks.weight[part], self.pointer_asks.bias[part]) * width**-0.5
        return asks

    def _point(self, hidden: Tensor, slot: int, pointers: Tensor) -> Tensor:
        asks = self._ask(hidden, slot)
        return asks @ (pointers[0].T if len(pointers) == 1 else pointers.transpose(-1, -2))

    def log_probabilities(self, pictures: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
        """Natural log of the probability of each used slot and of the end, (samples, shapes + 1, SLOTS); zeros elsewhere.

        Args:
            pictures: int64 (samples or 1, height, width); slots: int64 (samples, shapes, SLOTS); lengths: int64 (samples,).
        """
        read = self.read(pictures)
        samples, shapes = slots.shape[:2]
        height = pictures.shape[1]
        open_ended = torch.cat([slots, torch.zeros(samples, 1, SLOTS, dtype=torch.long)], 1)
        hidden = self.hidden(read, open_ended).reshape(samples, shapes + 1, SLOTS, -1)
        start = torch.tensor([0, -1]).expand(samples, 1, 2)
        place = torch.cat([start, open_ended[:, :-1, :2]], 1)
        number = torch.arange(shapes + 1)
        used, ends = number < lengths[:, None], number == lengths[:, None]
        rows = torch.where(ends, height, open_ended[..., ROW])
        row, column = open_ended[..., ROW], open_ended[..., COLUMN]
        kind, row2 = open_ended[..., KIND], open_ended[..., ROW2]
        has_row2, has_column2 = kind_table(kind)
        row2 = torch.where(has_row2, row2, row)
        logits = (
            self.foretell_row(read, hidden[:, :, ROW], place),
            self.foretell_along(read, hidden[:, :, COLUMN], COLUMN, row, place[..., 1]),
            self.kind_out(hidden[:, :, KIND]),
            self.colour_out(hidden[:, :, COLOUR]),
            self.foretell_along(read, hidden[:, :, ROW2], ROW2, column, row),
            self.foretell_along(read, hidden[:, :, COLUMN2], COLUMN2, row2, column),
        )
        counted = (used | ends, used, used, used, used & has_row2, used & has_column2)
        wanted = (rows, column, kind, open_ended[..., COLOUR], open_ended[..., ROW2], open_ended[..., COLUMN2])
        found = []
        for one, target, count in zip(logits, wanted, counted, strict=True):
            found.append(one.log_softmax(-1).gather(-1, target[..., None])[..., 0] * count)
        return torch.stack(found, -1)


def kind_table(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Whether kinds, as indices, have a second row, and a second column."""
    return torch.from_numpy(KIND_HAS_ROW2)[kinds], torch.from_numpy(KIND_HAS_COLUMN2)[kinds]
