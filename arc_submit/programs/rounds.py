"""Rounds of learning from hindsight: write programs, run them, make relabelled tasks of what they really do, learn, and write again.

Use: `run_rounds(task, Parts(run, writer, learner), settings, folder, seconds_left, watch)`. The rounds end when a program reproduces
all train outputs, after `settings.rounds`, when the time that is left is less than a round took, or when a writer or a learner ends the
round with TimeIsUpError. After each round the folder has all that the next one needs, so that a process that was killed goes on from the
last whole round; equal seeds give equal rounds. `watch` gets each round's record with its programs. Knows what runs, writes and learns by
protocols alone.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from arc_submit.arc.files import write_json
from arc_submit.arc.task import Task
from arc_submit.errors import ConfigError, DataError, TimeIsUpError
from arc_submit.options import Identity, identity_values, option
from arc_submit.programs.interface import Writer, WrittenProgram
from arc_submit.programs.relabel import RanProgram, RelabelledTask, choose_relabelled, relabel

STATE = "rounds.json"


class Learner(Protocol):
    """Fine-tunes the writer's model on relabelled tasks, in their order."""

    def __call__(self, relabelled: Sequence[RelabelledTask], seed: int) -> float:
        """Learn each relabelled task once; returns the mean loss in nats a token. Equal arguments change equal weights equally.

        Raises:
            TimeIsUpError: where no time is left for the whole of it.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write all that later calls and the writer depend on: weights and the optimizer's moments, as safetensors."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        ...


@dataclass(frozen=True)
class RoundSettings:
    """How rounds are made."""

    samples: int = option(16, help="programs written in a round", identity=Identity.SAME, minimum=1, maximum=4096, commands=("paint",))
    cold_samples: int = option(4, help="of them, at the low temperature", identity=Identity.SAME, minimum=0, commands=("paint",))
    temperature: float = option(0.9, help="of the other programs", identity=Identity.SAME, above=0.0, commands=("paint",))
    cold_temperature: float = option(0.1, help="the low temperature", identity=Identity.SAME, above=0.0, commands=("paint",))
    best: int = option(25, help="best programs that are learnt from in a round", identity=Identity.SAME, minimum=0, commands=("paint",))
    worst: int = option(25, help="worst programs that are learnt from", identity=Identity.SAME, minimum=0, commands=("paint",))
    learn: bool = option(True, help="learn from what the programs draw", identity=Identity.SAME, commands=("paint",))
    rounds: int = option(100, help="at most so many rounds", identity=Identity.FREE, minimum=1, commands=("paint",))
    seed: int = option(0, help="of all that is random", identity=Identity.SAME, minimum=0, commands=("paint",))


@dataclass(frozen=True)
class Parts:
    """What writes, runs and learns; the writer's model is the one that the learner changes.

    Attributes:
        run: runs written programs on the task's inputs, as `run_programs` does, in their order.
        first: programs that were written and run before the rounds: the first round learns from them and writes none. None: it writes.
    """

    run: Callable[[Sequence[WrittenProgram]], list[RanProgram]]
    writer: Writer
    learner: Learner
    first: Sequence[RanProgram] | None = None


@dataclass(frozen=True)
class RoundRecord:
    """What came of one round.

    Attributes:
        round: from 0.
        seconds: of the whole round.
        written, valid: programs, and those that gave a grid for every input.
        distinct: different behaviours among the valid ones; new: those that no earlier round had.
        whole, cells: of the round's best program (see RanProgram); -1 where no program was valid.
        mean_cells: mean share of right cells of the valid programs; 0 where there is none.
        size, lines: of its text, in tokens and lines; text, view: that program.
        loss: mean loss of the relabelled tasks in nats a token; None where nothing was learnt.
    """

    round: int
    seconds: float
    written: int
    valid: int
    distinct: int
    new: int
    whole: int
    cells: float
    mean_cells: float
    size: int
    lines: int
    text: str
    view: str
    loss: float | None


@dataclass(frozen=True)
class Outcome:
    """All rounds, and whether a program reproduces all train outputs."""

    records: list[RoundRecord]
    solved: bool

    @property
    def best(self) -> RoundRecord | None:
        """The round with the best program; the earliest of equal ones."""
        return max(self.records, key=lambda one: (one.whole, one.cells, -one.size, -one.round), default=None)

    @property
    def seconds(self) -> float:
        """Seconds of all rounds together."""
        return sum(one.seconds for one in self.records)


def run_rounds(
    task: Task,
    parts: Parts,
    settings: RoundSettings,
    folder: Path,
    seconds_left: Callable[[], float],
    watch: Callable[[RoundRecord, Sequence[RanProgram]], None] = lambda record, ran: None,
) -> Outcome:
    """Make rounds until the task is solved, or rounds or time are used up; see the module's text.

    Args:
        folder: of the state; made where it is missing. A folder of earlier rounds is gone on with.
        seconds_left: the time for further rounds.

    Raises:
        ConfigError: where the folder is of another task or other settings.
        DataError: where its state cannot be read.
    """
    if settings.cold_samples > settings.samples:
        raise ConfigError(f"--cold-samples {settings.cold_samples}: at most the {settings.samples} of --samples")
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"task": task.digest(), **identity_values(settings)}
    records, seen = _resume(folder, identity, parts.learner)
    while not _solved(records, task) and len(records) < settings.rounds:
        if seconds_left() <= max((one.seconds for one in records[-3:]), default=0.0):
            break
        begun = time.monotonic()
        number = len(records)
        loss = None
        try:
            if number == 0 and parts.first is not None:
                ran = list(parts.first)
            else:
                ran = parts.run(write_round(parts.writer, task, settings, number))
            relabelled = relabel(task, ran, seen)
            best = max((one for one in ran if one.complete is not None), key=lambda one: one.order, default=None)
            chosen = choose_relabelled(relabelled, settings.best, settings.worst)
            if settings.learn and chosen and (best is None or best.whole < len(task.train)):
                loss = parts.learner(chosen, _seed(settings, number, 2))
        except TimeIsUpError:
            break
        seen |= {one.ran.key for one in relabelled}
        record = _record(number, ran, len(relabelled), best, loss, time.monotonic() - begun)
        records.append(record)
        _save(folder, identity, records, seen, parts.learner if loss is not None else None)
        watch(record, ran)
    return Outcome(records, _solved(records, task))


def write_round(writer: Writer, task: Task, settings: RoundSettings, number: int) -> list[WrittenProgram]:
    """The programs of a round, those at the low temperature first.

    Args:
        number: of the round, from 0; the seeds follow from it.

    Raises:
        TimeIsUpError: where the writer has no time left for all of them.
    """
    programs = []
    hot = settings.samples - settings.cold_samples
    for part, (count, temperature) in enumerate(((settings.cold_samples, settings.cold_temperature), (hot, settings.temperature))):
        if count:
            programs += writer.write(task, count, temperature, _seed(settings, number, part))
    return programs


def _seed(settings: RoundSettings, number: int, part: int) -> int:
    """Different for each round, and for each part of a round."""
    return 1_000_003 * settings.seed + 3 * number + part


def _record(number: int, ran: Sequence[RanProgram], new: int, best: RanProgram | None, loss: float | None, seconds: float) -> RoundRecord:
    valid = [one for one in ran if one.complete is not None]
    text = best.program.text if best else ""
    return RoundRecord(
        round=number,
        seconds=round(seconds, 3),
        written=len(ran),
        valid=len(valid),
        distinct=len({one.key for one in valid}),
        new=new,
        whole=best.whole if best else -1,
        cells=best.cells if best else -1.0,
        mean_cells=sum(one.cells for one in valid) / len(valid) if valid else 0.0,
        size=best.size if best else 0,
        lines=sum(1 for line in text.splitlines() if line.strip()),
        text=text,
        view=best.program.view if best else "",
        loss=loss,
    )


def _solved(records: Sequence[RoundRecord], task: Task) -> bool:
    return any(one.whole == len(task.train) for one in records)


def _save(folder: Path, identity: dict[str, Any], records: Sequence[RoundRecord], seen: set[str], learner: Learner | None) -> None:
    """Write the state of a whole round: first what was learnt, then the file that names it; what is older goes last."""
    state = folder / STATE
    weights = _weights_of(state)
    if learner is not None:
        weights = f"learnt-{len(records)}"
        shutil.rmtree(folder / weights, ignore_errors=True)  # of a round that was cut off
        (folder / weights).mkdir()
        learner.save(folder / weights)
    value = {"identity": identity, "weights": weights, "seen": sorted(seen), "records": [asdict(one) for one in records]}
    write_json(state, value)
    for old in folder.glob("learnt-*"):
        if old.name != weights:
            shutil.rmtree(old, ignore_errors=True)


def _weights_of(state: Path) -> str | None:
    if not state.exists():
        return None
    weights: str | None = json.loads(state.read_text(encoding="utf-8"))["weights"]
    return weights


def _resume(folder: Path, identity: dict[str, Any], learner: Learner) -> tuple[list[RoundRecord], set[str]]:
    """The rounds done so far and the behaviours learnt from; the learner gets what it had learnt by then."""
    state = folder / STATE
    if not state.exists():
        return [], set()
    try:
        value = json.loads(state.read_text(encoding="utf-8"))
        names = {one.name for one in fields(RoundRecord)}
        records = [RoundRecord(**{name: one[name] for name in names}) for one in value["records"]]
        before, seen, weights = value["identity"], set(value["seen"]), value["weights"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{state}: not the state of rounds ({type(error).__name__}: {error}); name another folder, or delete this one"
        ) from None
    different = sorted(name for name in identity.keys() | before.keys() if identity.get(name) != before.get(name))
    if different:
        raise ConfigError(f"{folder}: made with another {', '.join(different)}; give the earlier values, or name another folder")
    if weights:
        learner.load(folder / weights)
    return records, seen
