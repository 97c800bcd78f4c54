"""The source "code" as a worker of a run: a language model writes Python programs for a task, and the right ones answer it.

Each answer of the model is kept in the source's folder as soon as it ends, so that a job that was killed goes on with the next question.
First programs are asked for under some views. When all of a run's first programs are there, programs that failed are shown back for a few
turns with what went wrong, so that a task has the same questions whether its first programs were asked for at once or in several jobs. A
task asks nothing more when a program reproduces all train pairs and gives a grid for every test input. Rounds of learning
(arc_submit.programs.rounds) may follow: a LoRA of the task is fine-tuned on what its programs really do, and asked for more. The programs'
outputs for the test inputs become predictions, before each round of learning and at the end of a job, each with the program's text and the
number of train pairs that it reproduces. Does not know the run's budget or other workers.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arc_submit.arc.datasets import read_task
from arc_submit.arc.files import append_lines, file_name
from arc_submit.arc.grid import Grid, grid_to_lists
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.arc.task import Task
from arc_submit.arc.views import choose_views
from arc_submit.errors import ArcSubmitError, TimeIsUpError
from arc_submit.inference.engine import Completion, Engine, Request
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PromptVersion
from arc_submit.programs.code_prompt import (
    QuestionTooLongError,
    check_vocabulary,
    code_prompt,
    extract_program,
    feedback,
    first_question,
    next_question,
    opened_thinking,
    thinking_of,
)
from arc_submit.programs.code_settings import CodeSettings
from arc_submit.programs.interface import ProgramError, WrittenProgram
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.refinement import Arm, choose_arms
from arc_submit.programs.relabel import RanProgram, run_programs, view_of
from arc_submit.programs.rounds import Parts, RoundSettings, run_rounds, write_round
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult

if TYPE_CHECKING:
    from arc_submit.programs.code_learner import CodeLearner, CodeTrainer  # with torch, which takes seconds

KIND = "code"
_COLD_EVERY = 4  # of the first programs, one in so many is drawn at the low temperature
_INPUT = re.compile(r"^input \d+: ")  # the number of an input that was run alone says nothing
_LAST_TOKENS = 64  # of a question, which hold the mark that opens the thinking, even where each byte is a token
_ENDED = "ended"  # a file in the folder of a task whose rounds of learning have ended
_AFTER = 5.0  # seconds after a job's time in which programs that were asked for are still run
_KEPT = 50  # programs whose outputs become predictions, the best of a task


@dataclass(frozen=True)
class Answer:
    """One answer of the model, as the source's folder keeps it.

    Attributes:
        turn: 0 for a first program, then the round of questions about failed ones, then three for each round of learning:
            its programs at the low temperature, the others, and none, as the third is the number of the learner's seed.
        number: within the turn.
        parent: place in the list of all answers of the program that it was asked about; -1 where it was asked about none.
        view: under which it was asked.
        text: the program; empty where the answer holds none.
        problem: why there is none.
        logprob: natural log of the probability of the answer.
        tokens: of the answer.
    """

    turn: int
    number: int
    parent: int
    view: str
    text: str
    problem: str
    logprob: float
    tokens: int


@dataclass(frozen=True)
class CodeWriter:
    """A loaded model with what it is asked.

    Attributes:
        max_seq_len: tokens of a question with its answer.
        trainer: of rounds of learning; None where there are none.
    """

    engine: Engine
    tokenizer: PromptTokenizer
    prompt: PromptVersion
    settings: CodeSettings
    max_seq_len: int
    trainer: CodeTrainer | None = None

    @property
    def question_limit(self) -> int:
        """Tokens that a question may have."""
        return self.max_seq_len - self.settings.code.tokens - self.settings.code.thinking


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job: {"tasks": [task ids]} -> a TaskResult for each.

    A job's "views" replaces the number of first programs; its "soft_deadline" is on the monotonic clock.

    Args:
        settings_json: CodeSettings.
        beat: called after every step of the engine and every program.

    Raises:
        ArcSubmitError: where the model or its question cannot work.
    """
    settings = CodeSettings.from_json(settings_json)
    writer = load_writer(settings)
    language = PythonLanguage()
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        samples = job.get("views", settings.code.samples)
        results = {}
        for task_id in job["tasks"]:
            results[task_id] = answer_task(writer, language, task_id, samples, beat, job.get("soft_deadline")).to_json()
        return {"tasks": results}

    return do


def answer_task(
    writer: CodeWriter, language: PythonLanguage, task_id: str, samples: int, beat: Callable[..., None], deadline: float | None = None
) -> TaskResult:
    """Ask for programs for a task until one reproduces all train pairs, the turns are used up, or the time is; write its predictions.

    Args:
        samples: first programs.
        deadline: on the monotonic clock.
    """
    started, settings = time.monotonic(), writer.settings
    paths = RunPaths(Path(settings.predict.run))
    path = paths.predictions(settings.predict.source, task_id)
    result = TaskResult(answered=0, tokens=0, malformed=0)

    def answer(ran: Iterable[RanProgram | None]) -> None:
        seconds = time.monotonic() - started
        predictions = make_predictions(task, ran, Path(settings.predict.model).name, settings.predict.source, seconds)
        result.made = (result.made or 0) + _append_new(path, predictions, settings.predict.kind)

    try:
        task = read_task(paths.task(task_id))
        work = _Task(writer, language, task, lambda: beat({"tokens": result.tokens}), answer)
        result.held = len(read_predictions(path)[0])
        complete = work.ask(samples, deadline)
        result.refused = work.refused
        result.answered = sum(one.turn == 0 for one in work.answers)
        result.steps, result.train_seconds = work.further, round(work.further_seconds, 3)
        result.tokens = sum(one.tokens for one in work.new)
        result.malformed = sum(not one.text for one in work.new)
        result.programs = dict(Counter(map(_ending, work.ran)).most_common()) or None
        result.notes = [*work.notes, *dict.fromkeys(work.failures)] or None
        result.unfinished = 0 if complete else max(1, samples - result.answered)
        answer(ran for _, ran in work.in_order)
        if not work.answers and work.refused:
            result.failed = work.refused[0]
        elif work.failures and not work.answers:
            result.failed, result.not_served = work.failures[0], True
    except ArcSubmitError as error:
        result.failed = str(error)
    result.seconds = round(time.monotonic() - started, 3)
    return result


def _ending(ran: RanProgram | None) -> str:
    """What came of an answer, see `TaskResult.programs`."""
    if ran is None:
        return "none"
    return ran.refusal.partition(":")[0] if ran.refusal else "grids"


def load_writer(settings: CodeSettings) -> CodeWriter:
    """The model with what it is asked, and what trains it in rounds of learning.

    Raises:
        ArcSubmitError: where the model or its question cannot work.
    """
    import torch

    torch.set_num_threads(settings.predict.threads)
    config, prompt = settings.predict.prompt_config(), code_prompt(settings.code.prompt)
    engine, base_tokenizer, reason, trainer = _load_model(settings, prompt, config.max_seq_len)
    tokenizer = PromptTokenizer.from_config(base_tokenizer, config)
    if settings.code.thinking:
        tokenizer.let_think()
    check_vocabulary(base_tokenizer, prompt)
    print(f"model {settings.predict.model}: {engine.name} on {settings.predict.device} ({reason})", flush=True)
    return CodeWriter(engine, tokenizer, prompt, settings, config.max_seq_len, trainer)


def _load_model(settings: CodeSettings, prompt: PromptVersion, max_seq_len: int) -> tuple[Engine, Any, str, CodeTrainer | None]:
    """The engine, its tokenizer, the reason for its dtype, and what trains in rounds of learning.

    The transformers engine shares its weights with the training. vllm does not, and begins first, as it measures the memory that is free.
    """
    from arc_submit.inference import load
    from arc_submit.inference.load_transformers import make_engine

    predict = settings.predict
    if not settings.code.learn_rounds:
        return *load.load_engine(predict, max_seq_len), None
    from arc_submit.programs.code_learner import open_trainer

    if predict.engine == "transformers":
        trainer, model = open_trainer(settings, prompt)
        tokenizer = trainer.sampler.tokenizer.tokenizer
        slots = predict.slots if trainer.card is None else trainer.card.plan_slots(max_seq_len, predict.slots, trains=True) or 2
        return make_engine(model, tokenizer.eos_token_id, slots), tokenizer, f"{model.dtype}, as in training", trainer
    engine, tokenizer, reason = load.load_engine(predict, max_seq_len, settings.lora.file_rank)
    return engine, tokenizer, reason, open_trainer(settings, prompt)[0]


def programs_path(home: Path, task_id: str) -> Path:
    """The file of a task's programs in the source's folder."""
    return home / "programs" / f"{file_name(task_id)}.jsonl"


def rounds_folder(home: Path, task_id: str) -> Path:
    """The folder of a task's rounds of learning in the source's folder."""
    return home / "rounds" / file_name(task_id)


def _append_new(path: Path, predictions: Iterable[Prediction], kind: str) -> int:
    """Write the predictions of programs that have none yet; returns how many."""
    held = {(p.test, p.view, p.program) for p in read_predictions(path)[0]}
    new = [replace(p, kind=kind) if kind else p for p in predictions if (p.test, p.view, p.program) not in held]
    append_predictions(path, new)
    return len(new)


class _Task:
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
        return [_written(one) for one in answers]

    def _ran(self, programs: Sequence[WrittenProgram]) -> list[RanProgram]:
        """What programs gave that `write` has asked for and run; the programs up to theirs answer the task before they are learnt."""
        self.answer(ran for _, ran in self.in_order)
        ran = {_written(answer): one for answer, one in self.in_order if one is not None}
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
            for request, completion in self._completions(requests, deadline):
                count += 1
                if completion.finished == "failed":
                    self.failures.append(completion.reason)
                    continue
                number, parent, view = asked[request.id]
                text, problem = self._program(request, completion)
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

    def _completions(self, requests: Sequence[Request], deadline: float | None) -> Iterable[tuple[Request, Completion]]:
        """The completion of each request; one that thinks to its end is asked once more for the program alone."""
        writer, by_id = self.writer, {one.id: one for one in requests}
        cut: dict[str, tuple[Request, Completion]] = {}
        for completion in writer.engine.generate(requests, self.beat, deadline):
            request = by_id[completion.id]
            cuts = completion.finished == "length" and writer.settings.code.thinking > 0
            marks = thinking_of(self._text(request, completion)) if cuts else None
            if marks is None:
                yield request, completion
                continue
            # The thinking is cut so that it fits its budget with the words that end it, which are the model's from then on.
            ending = writer.tokenizer.tokenizer.encode(marks[2], add_special_tokens=False)
            begun = [*completion.tokens[: max(0, writer.settings.code.thinking - len(ending))], *ending]
            prompt = [*request.prompt, *begun]
            # The ending of a budget that is shorter than it takes its room from the program.
            again = replace(request, prompt=prompt, max_new_tokens=min(writer.settings.code.tokens, writer.max_seq_len - len(prompt)))
            cut[request.id] = again, replace(completion, tokens=begun)
        if cut:
            for completion in writer.engine.generate([request for request, _ in cut.values()], self.beat, deadline):
                first = cut[completion.id][1]
                both = replace(completion, tokens=[*first.tokens, *completion.tokens], logprob=first.logprob + completion.logprob)
                yield by_id[completion.id], both

    def _text(self, request: Request, completion: Completion) -> str:
        """The text of an answer with its marks, which some tokenizers count among the special tokens.

        It begins with the mark that opens the thinking where the chat template has written it at the end of the question.
        """
        ends = set(self.writer.tokenizer.end_ids)
        kept = list(completion.tokens)
        while kept and kept[-1] in ends:
            kept.pop()
        return opened_thinking(self._decoded(request.prompt[-_LAST_TOKENS:])) + self._decoded(kept)

    def _decoded(self, tokens: Sequence[int]) -> str:
        text: str = self.writer.tokenizer.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _program(self, request: Request, completion: Completion) -> tuple[str, str]:
        """The program in an answer, and why there is none."""
        try:
            return extract_program(self._text(request, completion)), ""
        except ProgramError as error:
            return "", error.message

    def _keep(self, answer: Answer) -> None:
        append_lines(self.path, json.dumps(vars(answer), separators=(",", ":")) + "\n")
        self.answers.append(answer)
        self.new.append(answer)

    def _run(self) -> bool:
        """Run the programs that were not run yet; False where the time ended it before the last."""
        for answer in self.answers[len(self.ran) :]:
            if time.monotonic() > self.run_until:
                return False
            ran = run_programs(self.language, self.task, [_written(answer)])[0] if answer.text else None
            self.ran.append(ran)
            if ran is not None:
                key = ran.program.view, ran.program.text
                self.written[key] = min(self.written.get(key, answer.text), answer.text, key=lambda text: (len(text), text))
            self.beat()
        return True


def _written(answer: Answer) -> WrittenProgram:
    return WrittenProgram(answer.text, answer.logprob, answer.view)


def read_answers(path: Path) -> list[Answer]:
    """The answers in a task's file; a line that a kill cut short is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    answers = []
    for line in lines:
        try:
            answers.append(Answer(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return answers


def make_predictions(task: Task, ran: Iterable[RanProgram | None], model: str, source: str, seconds: float) -> list[Prediction]:
    """A prediction of each of the best programs for each test input with an output; of programs with one text and view one.

    Args:
        ran: the programs; None where an answer held none.
        seconds: of all of them.
    """
    pairs = len(task.train)
    best: dict[tuple[str, str], RanProgram] = {}
    for one in ran:
        if one is not None and any(grid is not None for grid in one.outputs[pairs:]):
            key = one.program.view, one.program.text
            best[key] = max(best.get(key, one), one, key=lambda one: one.program.logprob)
    chosen = sorted(best.values(), key=lambda one: one.order, reverse=True)[:_KEPT]
    predictions = []
    for one in chosen:
        view, logprob = view_of(one.program, task).key, min(0.0, one.program.logprob)
        for test, grid in enumerate(one.outputs[pairs:]):
            if grid is not None:
                fits = one.whole, pairs
                predictions.append(
                    Prediction(task.id, test, grid, source, view, logprob, model, seconds, program=one.program.text, fits=fits)
                )
    return predictions
