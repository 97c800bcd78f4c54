"""The programs of one task: which are asked for, in turns, about which failed ones, and in rounds of learning.

What is asked is a function of the settings, the task and the answers of earlier turns, so that a job that was killed goes on with the next
question. Does not know jobs or a run's budget.
"""

from __future__ import annotations

import math
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arc_submit.arc.grid import Grid, grid_to_lists
from arc_submit.arc.task import Task
from arc_submit.arc.views import choose_views
from arc_submit.errors import ArcSubmitError, TimeIsUpError
from arc_submit.inference.engine import Request
from arc_submit.programs.code_answers import Answer, keep_answer, programs_path, read_answers, rounds_folder
from arc_submit.programs.code_prompt import QuestionTooLongError, feedback, first_question, next_question
from arc_submit.programs.code_writer import CodeWriter, completions, program_of
from arc_submit.programs.interface import ProgramError, WrittenProgram
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.refinement import Arm, choose_arms
from arc_submit.programs.relabel import RanProgram, run_programs, view_of
from arc_submit.programs.rounds import Parts, RoundSettings, run_rounds, write_round

if TYPE_CHECKING:
    from arc_submit.programs.code_learner import CodeLearner  # with torch, which takes seconds

_COLD_EVERY = 4  # of the first programs, one in so many is drawn at the low temperature
_INPUT = re.compile(r"^input \d+: ")  # the number of an input that was run alone says nothing
_ENDED = "ended"  # a file in the folder of a task whose rounds of learning have ended
_AFTER = 5.0  # seconds after a job's time in which programs that were asked for are still run


class CodeTask:
    """The programs of one task; in rounds of learning their Writer (arc_submit.programs.interface).

    Args:
        answer: makes predictions of programs that were run.
    """

    def __init__(
        self,
        writer: CodeWriter,
        language: PythonLanguage,
        task: Task,
        beat: Callable[[], None],
        answer: Callable[[Iterable[RanProgram | None]], None],
    ):
        self.writer, self.language, self.task, self.beat, self.answer = writer, language, task, beat, answer
        self.path = programs_path(Path(writer.settings.home), task.id)
        self.answers = read_answers(self.path)
        self.new: list[Answer] = []
        self.ran: list[RanProgram | None] = []
        self.written: dict[tuple[str, str], str] = {}
        self.refused: list[str] = []
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.further_seconds = 0.0
        self.learner: CodeLearner | None = None
        self.deadline: float | None = None
        self.run_until = math.inf  # on the monotonic clock; programs that are there are run a little longer than questions are asked
        self.seed = [writer.settings.predict.seed, zlib.crc32(task.id.encode())]

    @property
    def further(self) -> int:
        """Further questions that were answered, and programs that were learnt, in this call of the worker."""
        return sum(one.turn > 0 for one in self.new) + (self.learner.learnt if self.learner else 0)

    @property
    def in_order(self) -> list[tuple[Answer, RanProgram | None]]:
        """The answers that were run, in the order of their questions: they end in any order."""
        return sorted(zip(self.answers, self.ran, strict=False), key=lambda one: (one[0].turn, one[0].number))

    @property
    def solved(self) -> bool:
        """Whether a program reproduces all train pairs and gives a grid for every test input."""
        return any(one is not None and self._solves(one) for one in self.ran)

    def _solves(self, ran: RanProgram) -> bool:
        return ran.whole == len(self.task.train) and ran.complete is not None

    def ask(self, samples: int, deadline: float | None) -> bool:
        """Ask all that is asked about the task; False where the time ended it."""
        settings = self.writer.settings
        self.deadline = deadline
        self.run_until = math.inf if deadline is None else max(deadline, time.monotonic()) + _AFTER
        if not self._run():
            return False
        if not self.solved and not self._round(0, [-1] * samples, deadline):
            return False
        if samples < settings.code.samples:
            return True  # the further questions are about the programs of all jobs
        begun = time.monotonic()
        try:
            return self._ask_further()
        finally:
            self.further_seconds = time.monotonic() - begun

    def _ask_further(self) -> bool:
        """Ask about the programs that are there, and learn from them; False where the time ended it."""
        settings = self.writer.settings
        for turn in range(1, settings.code.turns + 1):
            begun = [one.parent for one in sorted(self.answers, key=lambda one: one.number) if one.turn == turn]
            if self.solved and len(begun) == 0:
                break
            if not self._round(turn, self._parents(turn), self.deadline):
                return False
        return self._learn()

    def _learn(self) -> bool:
        """Make the rounds of learning; False where the time ended them. Where learning cannot go on, a note says why."""
        settings, trainer = self.writer.settings, self.writer.trainer
        folder = rounds_folder(Path(settings.home), self.task.id)
        begun = any(one.turn > settings.code.turns for one in self.answers)  # a round that was cut short is ended, whatever is among it
        if trainer is None or (folder / _ENDED).exists() or (self.solved and not begun):
            return True
        from arc_submit.programs.code_learner import CodeLearner

        samples, last = settings.code.samples, settings.code.learn_rounds
        cold = -(-samples // _COLD_EVERY)
        rounds = RoundSettings(samples, cold, settings.code.temperature, settings.code.cold_temperature, rounds=last)
        first = [ran for answer, ran in self.in_order if ran is not None and answer.turn <= settings.code.turns]
        self.answer(first)  # a kill within the learning, which may take long, does not cost them
        self.learner = CodeLearner(trainer, self.task, self.written, self._on_pass)
        try:
            outcome = run_rounds(self.task, Parts(self._ran, self, self.learner, first), rounds, folder, self._seconds_left)
            if not outcome.solved and len(outcome.records) < last:
                return False
            if not outcome.solved:
                write_round(self, self.task, rounds, last)  # nothing is learnt from the last programs
        except TimeIsUpError:
            return False
        except ArcSubmitError as error:
            self.notes.append(f"no further learning: {error}")
        finally:
            self.notes += self.learner.notes
        (folder / _ENDED).touch()
        for weights in folder.glob("learnt-*"):  # nothing is asked with them any more
            shutil.rmtree(weights, ignore_errors=True)
        return True

    def write(self, task: Task, count: int, temperature: float, seed: int) -> list[WrittenProgram]:
        """See Writer. What an earlier call with this seed has asked and kept is not asked again.

        Raises:
            TimeIsUpError: see Writer.
        """
        turn = self._learning_turn(seed)
        if not self._round(turn, [-1] * count, self.deadline, temperature):
            raise TimeIsUpError(f"no time is left for the programs of {task.id}")
        answers = sorted((one for one in self.answers if one.turn == turn and one.text), key=lambda one: one.number)
        return [one.written for one in answers]

    def _ran(self, programs: Sequence[WrittenProgram]) -> list[RanProgram]:
        """What programs gave that `write` has asked for and run; the programs up to theirs answer the task before they are learnt."""
        self.answer(ran for _, ran in self.in_order)
        ran = {answer.written: one for answer, one in self.in_order if one is not None}
        return [ran[program] for program in programs]

    def _learning_turn(self, seed: int) -> int:
        """The turn of the programs that rounds of learning ask for with a seed."""
        return self.writer.settings.code.turns + 1 + seed

    def _seconds_left(self) -> float:
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def _on_pass(self) -> None:
        self.beat()
        if self._seconds_left() <= 0:
            raise TimeIsUpError(f"no time is left to learn from the programs of {self.task.id}")

    def _parents(self, turn: int) -> list[int]:
        """The programs to ask about in a turn: a function of the answers of earlier turns alone, whatever was killed in between."""
        before = [i for i, one in enumerate(self.answers) if one.turn < turn]
        arms, places = [], []
        # In a fixed order, as answers end in any.
        for i in sorted(before, key=lambda i: (self.answers[i].turn, self.answers[i].number)):
            ran = self.ran[i]
            if ran is None or self._solves(ran):
                continue
            asked = sum(one.parent == i and one.turn < turn for one in self.answers)
            arms.append(Arm(ran.whole / len(self.task.train), ran.cells, asked))
            places.append(i)
        rng = np.random.default_rng([*self.seed, 1, turn])
        return [places[i] for i in choose_arms(arms, self.writer.settings.code.refined, rng)]

    def _round(self, turn: int, parents: Sequence[int], deadline: float | None, temperature: float | None = None) -> bool:
        """Ask the questions of a turn that have no answer yet; False where the time ended it.

        Args:
            parents: the place of the program that each is about; -1: none.
            temperature: of all; None as the settings say.
        """
        answered = {one.number for one in self.answers if one.turn == turn}
        asked: dict[str, tuple[int, int, str]] = {}
        requests = []
        for number, parent in enumerate(parents):
            if number in answered:
                continue
            try:
                request, view = self._request(turn, number, parent)
                if temperature is not None:
                    request = replace(request, temperature=temperature, adapter=self.learner.folder if self.learner else None)
            except QuestionTooLongError as error:
                self.refused += [] if str(error) in self.refused else [str(error)]
                continue
            asked[request.id] = number, parent, view
            requests.append(request)
        count = 0
        if requests and not (deadline is not None and time.monotonic() >= deadline):
            for request, completion in completions(self.writer, requests, self.beat, deadline):
                count += 1
                if completion.finished == "failed":
                    self.failures.append(completion.reason)
                    continue
                number, parent, view = asked[request.id]
                text, problem = program_of(self.writer, request, completion)
                self._keep(Answer(turn, number, parent, view, text, problem, completion.logprob, len(completion.tokens)))
        return self._run() and count == len(requests)

    def _request(self, turn: int, number: int, parent: int) -> tuple[Request, str]:
        """The request of a question, and the key of the view under which it is asked.

        Raises:
            QuestionTooLongError: where it does not fit.
        """
        writer, settings, task = self.writer, self.writer.settings, self.task
        rng = np.random.default_rng([*self.seed, 0, turn, number])
        temperature = settings.code.temperature
        if parent < 0:
            views = choose_views(
                len(task.train), settings.code.views, self.seed[0] * 1_000_003 + self.seed[1], settings.predict.keep_background
            )
            view = views[number % len(views)]
            temperature = settings.code.cold_temperature if number % _COLD_EVERY == 0 else temperature
            ids = first_question(writer.tokenizer, writer.prompt, view.apply_task(task), writer.question_limit, rng)
        else:
            ran = self.ran[parent]
            assert ran is not None
            view = view_of(ran.program, task)
            shown = view.apply_task(task)
            places = [*view.order, *range(len(task.train), len(ran.outputs))]
            outputs = [None if (grid := ran.outputs[i]) is None else view.apply(grid) for i in places]
            text = self.answers[parent].text
            failed = text, feedback(shown, outputs, self._error(text, shown, outputs) or ran.refusal)
            ids = next_question(writer.tokenizer, writer.prompt, shown, failed, writer.question_limit)
        seed = int(rng.integers(2**31))
        request_id = f"{task.id}/{turn}/{number}"
        length = settings.code.tokens + settings.code.thinking
        return Request(request_id, ids, length, None, temperature, seed, end_ids=writer.tokenizer.end_ids), view.key

    def _error(self, text: str, shown: Task, outputs: Sequence[Grid | None]) -> str:
        """The error of a program for the first input without an output, in the names of the program as it was written.

        The errors of `run_programs` are those of its normal form, with other names. Empty where all inputs have outputs, or where the
        program as it was written gives one, as may happen with a limit of time.
        """
        inputs = [*(pair.input for pair in shown.train), *shown.tests]
        failing = next((grid for grid, output in zip(inputs, outputs, strict=True) if output is None), None)
        if failing is None:
            return ""
        try:
            self.language.process.run(text, [grid_to_lists(failing)])
        except ProgramError as error:
            return f"{error.refusal}: {_INPUT.sub('', error.message)}"
        return ""

    def _keep(self, answer: Answer) -> None:
        keep_answer(self.path, answer)
        self.answers.append(answer)
        self.new.append(answer)

    def _run(self) -> bool:
        """Run the programs that were not run yet; False where the time ended it before the last."""
        for answer in self.answers[len(self.ran) :]:
            if time.monotonic() > self.run_until:
                return False
            ran = run_programs(self.language, self.task, [answer.written])[0] if answer.text else None
            self.ran.append(ran)
            if ran is not None:
                key = ran.program.view, ran.program.text
                self.written[key] = min(self.written.get(key, answer.text), answer.text, key=lambda text: (len(text), text))
            self.beat()
        return True
