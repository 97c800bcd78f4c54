"""The Python subset as a `Language`: programs are checked here and run in a child process, their results kept by normal form.

Does not know who writes programs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType

from arc_submit.arc.grid import Grid, grid_id, grid_to_lists, make_grid
from arc_submit.programs.interface import ProgramError
from arc_submit.programs.python import subset
from arc_submit.programs.python.meter import Limits
from arc_submit.programs.python.process import ProgramProcess

_KEPT = 20_000  # results


class PythonLanguage:
    """Programs that define a function of one grid, in a subset of Python with numpy.

    The result of a program is a function of its text and the inputs, but for Refusal.TIME. Close it, or use it in a with statement, to end
    the child process at once; it ends with the object or with the parent otherwise.
    """

    name = "python"

    def __init__(self, limits: Limits | None = None):
        self.process = ProgramProcess(limits or Limits())
        self._results: OrderedDict[tuple[str, bytes], list[Grid] | ProgramError] = OrderedDict()

    def normal_form(self, text: str) -> str:
        """See Language."""
        return subset.normal_form(text)

    def size(self, text: str) -> int:
        """See Language; the number of syntactic parts of the normal form."""
        return subset.size(text)

    def run(self, text: str, inputs: Sequence[Grid]) -> list[Grid]:
        """See Language."""
        normal = subset.normal_form(text)
        key = normal, b"|".join(grid_id(grid) for grid in inputs)
        if key not in self._results:
            self._results[key] = self._run(normal, inputs)
            while len(self._results) > _KEPT:
                self._results.popitem(last=False)
        self._results.move_to_end(key)
        result = self._results[key]
        if isinstance(result, ProgramError):
            raise ProgramError(result.refusal, result.message)
        return list(result)

    def _run(self, normal: str, inputs: Sequence[Grid]) -> list[Grid] | ProgramError:
        try:
            return [make_grid(grid, "output") for grid in self.process.run(normal, [grid_to_lists(grid) for grid in inputs])]
        except ProgramError as error:
            return error

    def close(self) -> None:
        """End the child process."""
        self.process.close()

    def __enter__(self) -> PythonLanguage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
