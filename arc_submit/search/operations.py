"""Operations: the table of every primitive with its arguments, and the one compiled function that applies any of them to a node.

An operation takes an image or a list and gives an image or a list; an operation on images is mapped over a list. Knows nothing about
what to search for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit_into_callers
from arc_submit.search.primitives.colour import COLOUR_NAMES, apply_colour, cell_count, colour_count, commonest, painted
from arc_submit.search.primitives.line import LINE_NAMES, apply_line
from arc_submit.search.primitives.lists import LIST_NAMES, MEASURE_NAMES, apply_list, hole_count
from arc_submit.search.primitives.region import REGION_NAMES, apply_region
from arc_submit.search.primitives.shape import SHAPE_NAMES, Placed, apply_shape
from arc_submit.search.primitives.splitting import SPLIT_NAMES, apply_split, label
from arc_submit.search.primitives.tiling import TILING_NAMES, apply_tiling, bar
from arc_submit.search.store import CELLS, IMAGES, WORK, Array, Store, commit, drop, image_cells, push

COLOUR, SHAPE, REGION, LINE, TILING, COUNT, SPLIT, LIST = range(8)
COUNT_NAMES = ("count_cells", "count_colours", "count_components", "count_holes")
_RAY_SETS = {"up": 1, "down": 2, "left": 4, "right": 8, "vertical": 3, "horizontal": 12, "plus": 15}
_RAY_SETS |= {"up_left": 16, "up_right": 32, "down_left": 64, "down_right": 128, "falling": 144, "rising": 96, "cross": 240, "star": 255}
_FORMS = ("row", "column", "square", "diagonal")


@dataclass(frozen=True)
class Operation:
    """One primitive with its argument.

    Attributes:
        name: what a program prints.
        family, variant, argument: what `apply` dispatches on.
        takes_list: whether it works on a list as a whole; an operation on images is mapped over a list.
        gives_list: whether its result is a list (for an operation on images: when it is given one image).
        cost: in tenths of a step; a program costs the sum.
    """

    name: str
    family: int
    variant: int
    argument: int
    takes_list: bool
    gives_list: bool
    cost: int


def _table() -> list[Operation]:
    table: list[Operation] = []

    def add(name: str, family: int, variant: int, argument: int = 0, takes_list: bool = False, gives_list: bool = False) -> None:
        table.append(Operation(name, family, variant, argument, takes_list, gives_list, _cost(name)))

    for variant, name in enumerate(COLOUR_NAMES):
        if name in ("keep", "erase", "paint", "fill_background"):
            for colour in range(1, 10):
                add(f"{name}({colour})", COLOUR, variant, colour)
        else:
            add(name, COLOUR, variant)
    for variant, name in enumerate(SHAPE_NAMES):
        add(name, SHAPE, variant)
    for variant, name in enumerate(REGION_NAMES):
        add(name, REGION, variant)
    for ray_name, bits in _RAY_SETS.items():
        add(f"rays({ray_name})", LINE, 0, bits)
    for variant, name in ((1, "connect"), (2, "connections")):
        for text, bits in (("columns", 1), ("rows", 2), ("rows_and_columns", 3), ("diagonals", 4)):
            add(f"{name}({text})", LINE, variant, bits)
    add("spread(4)", LINE, LINE_NAMES.index("spread"), 0)
    add("spread(8)", LINE, LINE_NAMES.index("spread"), 1)
    for variant, name in enumerate(TILING_NAMES):
        if name in ("scale", "repeat_right", "repeat_down", "mirror_right", "mirror_down"):
            for times in (2, 3):
                add(f"{name}({times})", TILING, variant, times)
        elif name == "fractal":
            add("fractal", TILING, variant, 0)
            add("fractal_of_gaps", TILING, variant, 1)
        elif name == "wrap_to_size":
            add("wrap_to_size", TILING, variant, 0)
            add("wrap_painted_to_size", TILING, variant, 1)
        else:
            add(name, TILING, variant)
    for variant, name in enumerate(COUNT_NAMES):
        for form, form_name in enumerate(_FORMS):
            add(f"{name}({form_name})", COUNT, variant, form)
    for variant, name in enumerate(SPLIT_NAMES):
        add(name, SPLIT, variant, 0, False, True)
    for variant, name in enumerate(LIST_NAMES):
        if variant < 8:
            for criterion, criterion_name in enumerate(MEASURE_NAMES):
                # Of images that are alike there are at least two, so none alone has most copies.
                if criterion_name not in (("height", "width") if variant >= 2 else ("copies", "colour_copies") if variant == 0 else ()):
                    add(f"{name}({criterion_name})", LIST, variant, criterion, True, variant >= 2)
        elif name == "logic":
            for kind, kind_name in enumerate(("all", "exactly_one", "none", "first_alone")):
                add(f"logic({kind_name})", LIST, variant, kind, True)
        elif name == "slide":
            for direction, direction_name in enumerate(("up", "down", "left", "right")):
                add(f"slide({direction_name})", LIST, variant, direction, True, True)
        elif name == "count_bar":
            for form, form_name in enumerate(_FORMS):
                add(f"count_bar({form_name})", LIST, variant, form, True)
        else:
            add(name, LIST, variant, 0, True, name == "reverse")
    return table


# What an operation costs beside the usual 9, set from how often the programs that solve training tasks use it.
_COSTS = {
    3: "embed compose_first_on_top",
    5: "crop paint most least",
    7: "keep erase fill_background mirror_left_right mirror_up_down half_turn transpose turn_left turn_right connect rim holes fill_holes"
    " outline mirror_to_size repeat_to_size drop_blank_lines keep_rarest paint_rarest compose_last_on_top overlay_first_on_top logic"
    " all_most all_least all_but_most all_but_least first last to_origin",
    12: "move_up move_down move_left move_right even_rows odd_rows even_columns odd_columns even_squares odd_squares sort_up sort_down"
    " count_cells count_colours count_components count_holes wrap_to_size wrap_painted_to_size split_rows split_columns three_rows"
    " three_columns boxes_straight objects_straight connections slide swap_two_colours mirror_from_below_to_size",
}
_COST_OF = {name: cost for cost, names in _COSTS.items() for name in names.split()}


def _cost(name: str) -> int:
    return _COST_OF.get(name.partition("(")[0], 9)


OPERATIONS = _table()
# One row per operation: family, variant, argument, takes a list, gives a list, cost.
TABLE = np.array([(o.family, o.variant, o.argument, o.takes_list, o.gives_list, o.cost) for o in OPERATIONS], dtype=np.int64)


@jit_into_callers
def transform(family: int, variant: int, argument: int, y: int, x: int, cells: Grid, height: int, width: int) -> Placed:
    """Apply an operation on images; height and width are the output's, 0 where not known."""
    if family == COLOUR:
        return y, x, apply_colour(variant, argument, cells)
    if family == SHAPE:
        return apply_shape(variant, y, x, cells)
    if family == REGION:
        return y, x, apply_region(variant, cells)
    if family == LINE:
        return y, x, apply_line(variant, argument, cells)
    if family == TILING:
        out = apply_tiling(variant, argument, y, x, cells, height, width)
        # What fills the output's frame starts at its corner.
        return (0, 0, out) if variant >= 7 else (y, x, out)
    if variant == 0:
        count = cell_count(cells)
    elif variant == 1:
        count = colour_count(cells)
    elif variant == 2:
        count = label(cells, True, True)[1]
    else:
        count = hole_count(cells)
    return 0, 0, bar(count, argument, commonest(cells))


@jit_into_callers
def apply(store: Store, node: int, row: Array, frames: Array, limits: Array) -> int:
    """Apply one operation to a node.

    Args:
        row: a row of TABLE.
        frames: int64 (examples, 4): height and width of the expected output (0: not known) and of the input, by example.
        limits: int64 (3,): most cells of an image, most cells of a list together, most images of a list.

    Returns:
        the node that holds the result, or -1 where there is none or it breaks a limit. store.counters[WORK] grows by the cells touched.
    """
    family, variant, argument, takes_list = row[0], row[1], row[2], row[3]
    first, count, is_list, example = store.nodes[node, 0], store.nodes[node, 1], store.nodes[node, 2], store.nodes[node, 3]
    start = store.counters[IMAGES]
    cells_before = store.counters[CELLS]
    touched = 20
    for k in range(first, first + count):
        touched += store.images[k, 2] * store.images[k, 3]
    store.counters[WORK] += touched
    gives_list = is_list
    if takes_list:
        apply_list(variant, argument, store, first, count, frames[example, 2], frames[example, 3])
        gives_list = row[4]
    elif family == SPLIT:
        apply_split(variant, store, store.images[first, 0], store.images[first, 1], image_cells(store, first))
        gives_list = 1
    else:
        for k in range(first, first + count):
            y, x, cells = transform(
                family,
                variant,
                argument,
                store.images[k, 0],
                store.images[k, 1],
                image_cells(store, k),
                frames[example, 0],
                frames[example, 1],
            )
            h, w = cells.shape
            if h > 0 and (h > 60 or w > 60 or h * w > limits[0]):
                drop(store, start)
                return -1
            # An image that an operation leaves blank goes out of a list; alone it stays, for a piece may be blank in some examples.
            if h > 0 and (is_list == 0 or painted(cells)) and not push(store, y, x, cells):
                drop(store, start)
                return -1
    made = store.counters[IMAGES] - start
    if made > limits[2] or store.counters[CELLS] - cells_before > limits[1]:
        drop(store, start)
        return -1
    for k in range(start, start + made):
        if store.images[k, 2] > 60 or store.images[k, 3] > 60 or store.images[k, 2] * store.images[k, 3] > limits[0]:
            drop(store, start)
            return -1
    return int(commit(store, start, gives_list, example, gives_list == 0))
