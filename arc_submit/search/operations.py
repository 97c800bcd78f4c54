"""Operations: the table of all primitives with their arguments, and the compiled function that applies any of them to a node.

An operation takes an image or a list of images and returns an image or a list; an operation on images is mapped over a list. This module
does not know the search.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from arc_submit.arc.grid import Grid
from arc_submit.search.jit import jit_into_callers
from arc_submit.search.primitives.colour import COLOUR_NAMES, any_painted, apply_colour, cell_count, colour_count, commonest
from arc_submit.search.primitives.line import LINE_NAMES, apply_line
from arc_submit.search.primitives.lists import LIST_NAMES, MEASURE_NAMES, apply_list, hole_count
from arc_submit.search.primitives.region import REGION_NAMES, apply_region
from arc_submit.search.primitives.shape import SHAPE_NAMES, Placed, apply_shape
from arc_submit.search.primitives.splitting import SPLIT_NAMES, apply_split, label
from arc_submit.search.primitives.tiling import TILING_NAMES, apply_tiling, bar
from arc_submit.search.store import CELLS, IMAGES, WORK, Array, Store, commit, drop, image_cells, push

COLOUR, SHAPE, REGION, LINE, TILING, COUNT, SPLIT, LIST = range(8)
COUNT_NAMES = ("count_cells", "count_colours", "count_components", "count_holes")
# Sets of directions as bits over primitives.line.STEPS.
_RAY_SETS = {"up": 1, "down": 2, "left": 4, "right": 8, "vertical": 3, "horizontal": 12, "plus": 15}
_RAY_SETS |= {"up_left": 16, "up_right": 32, "down_left": 64, "down_right": 128, "falling": 144, "rising": 96, "cross": 240, "star": 255}
_FORMS = ("row", "column", "square", "diagonal")


@dataclass(frozen=True)
class Operation:
    """One primitive with its argument.

    Attributes:
        name: its text in a program.
        family, variant, argument: the keys on which `apply_operation` dispatches.
        takes_list: whether it works on a list as a whole; an operation on images is mapped over a list.
        gives_list: whether its result is a list (for an operation on images: when it receives one image).
        cost: in tenths of a step; a program costs the sum.
    """

    name: str
    family: int
    variant: int
    argument: int
    takes_list: bool
    gives_list: bool
    cost: int


# The costs of operations other than the default of 9, set from their use in programs that solve training tasks.
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


def _all_operations() -> list[Operation]:
    operations: list[Operation] = []

    def add(name: str, family: int, variant: int, argument: int = 0, takes_list: bool = False, gives_list: bool = False) -> None:
        cost = _COST_OF.get(name.partition("(")[0], 9)
        operations.append(Operation(name, family, variant, argument, takes_list, gives_list, cost))

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
        else:
            add(name, TILING, variant)
        if name in ("fractal", "wrap_to_size"):
            add({"fractal": "fractal_of_gaps", "wrap_to_size": "wrap_painted_to_size"}[name], TILING, variant, 1)
    for variant, name in enumerate(COUNT_NAMES):
        for form, form_name in enumerate(_FORMS):
            add(f"{name}({form_name})", COUNT, variant, form)
    for variant, name in enumerate(SPLIT_NAMES):
        add(name, SPLIT, variant, gives_list=True)
    list_arguments = {
        "logic": ("all", "exactly_one", "none", "first_alone"),
        "slide": ("up", "down", "left", "right"),
        "count_bar": _FORMS,
    }
    for variant, name in enumerate(LIST_NAMES):
        # The first 8 select or sort by a measure.
        for argument, text in enumerate(MEASURE_NAMES if variant < 8 else list_arguments.get(name, ("",))):
            # Equal images are at least two, so no single one has most copies.
            if variant < 8 and text in (("height", "width") if variant >= 2 else ("copies", "colour_copies") if variant == 0 else ()):
                continue
            gives_list = 2 <= variant < 8 or name in ("slide", "reverse")
            add(f"{name}({text})" if text else name, LIST, variant, argument, takes_list=True, gives_list=gives_list)
    return operations


OPERATIONS = _all_operations()
# One row per operation, int64: family, variant, argument, takes a list, gives a list, cost.
TABLE = np.array([astuple(operation)[1:] for operation in OPERATIONS], dtype=np.int64)


@jit_into_callers
def transform(family: int, variant: int, argument: int, y: int, x: int, cells: Grid, height: int, width: int) -> Placed:
    """The result of an operation on one image; height and width are the output's, 0 where they are not known."""
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
        # A result of the output's size starts at its corner.
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
def apply_operation(store: Store, node: int, row: Array, frames: Array, limits: Array) -> int:
    """Apply one operation to a node and add the cells it touches to store.counters[WORK].

    Args:
        row: a row of TABLE.
        frames: int64 (examples, 4): height and width of the expected output (0: not known) and of the input.
        limits: int64 (3,): maximum cells of an image, cells of a list together, images of a list.

    Returns:
        the result's node, or -1 where there is no result or it exceeds a limit.
    """
    family, variant, argument, takes_list = row[0], row[1], row[2], row[3]
    first, count, is_list, example = store.nodes[node, 0], store.nodes[node, 1], store.nodes[node, 2], store.nodes[node, 3]
    start, cells_before = store.counters[IMAGES], store.counters[CELLS]
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
            y, x = store.images[k, 0], store.images[k, 1]
            y, x, cells = transform(family, variant, argument, y, x, image_cells(store, k), frames[example, 0], frames[example, 1])
            h, w = cells.shape
            if h > 0 and (h > 60 or w > 60 or h * w > limits[0]):
                drop(store, start)
                return -1
            # A blank result leaves a list; a single blank image stays, because a piece may be blank in some examples.
            if h > 0 and (is_list == 0 or any_painted(cells)) and not push(store, y, x, cells):
                drop(store, start)
                return -1
    new_images = store.counters[IMAGES] - start
    if new_images > limits[2] or store.counters[CELLS] - cells_before > limits[1]:
        drop(store, start)
        return -1
    for k in range(start, start + new_images):
        if store.images[k, 2] > 60 or store.images[k, 3] > 60 or store.images[k, 2] * store.images[k, 3] > limits[0]:
            drop(store, start)
            return -1
    return int(commit(store, start, gives_list, example, gives_list == 0))
