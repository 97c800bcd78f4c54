"""Rounds of learning of the source code: a tiny model learns from what its programs do, and goes on after a kill as if there was none."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from conftest import source_named
from program_writer import PROGRAMS, make_model
from test_code_source import ScriptedEngine, make_task
from test_repeated_steps import scarce
from transformers import Qwen2ForCausalLM

from arc_submit.arc.grid import make_grid
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Pair, Task, task_to_json
from arc_submit.base_model.memory import SHORTEST_SAMPLE, Card, Footprint, read_shape
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError, DataError, TimeIsUpError
from arc_submit.finetune.trainer import FinetuneError
from arc_submit.inference.engine import Completion, Engine, OnStep, Request
from arc_submit.inference.memory_limits import MemoryLimits
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.lengths import words_of
from arc_submit.programs import code_learner, code_task
from arc_submit.programs.code_answers import Answer, programs_path, read_answers, rounds_folder
from arc_submit.programs.code_learner import CodeLearner
from arc_submit.programs.code_settings import CodeSettings
from arc_submit.programs.code_worker import answer_task, open_worker
from arc_submit.programs.code_writer import CodeWriter, load_writer
from arc_submit.programs.interface import WrittenProgram
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.relabel import RelabelledTask, relabel, run_programs
from arc_submit.programs.rounds import STATE
from arc_submit.run.data import load_data
from arc_submit.run.fingerprint import run_fingerprint
from arc_submit.run.pipeline import run
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import _check_model
from arc_submit.run.simulate import Rig, rig_setup
from arc_submit.run.source_code import code_ladder
from arc_submit.storage.run_dir import RunPaths

MIRROR = make_task()
# No program of the model solves it.
TASK = Task("thrice", tuple(Pair(pair.input, make_grid((3 * pair.input % 10).tolist())) for pair in MIRROR.train), MIRROR.tests)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    make_model(folder)
    return folder


def make_settings(model: Path, run: Path) -> CodeSettings:
    """Two rounds of learning, with questions about failed programs before them."""
    config = make_config(
        "cpu-pocket",
        model=model,
        sources=("code",),
        out=run,
        code_samples=6,
        code_views=2,
        code_turns=1,
        code_refined=1,
        code_tokens=24,
        code_temperature=1.5,
        code_learn_rounds=2,
        code_learn_rate=0.01,
        lora_rank=4,
        max_concurrent=2,
    )
    path = run / "tasks" / f"{TASK.id}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({TASK.id: task_to_json(TASK)}))
    return CodeSettings.from_json(source_named("code", config).backends[0].settings_for(0))


def no_beat(*_: Any) -> None:
    pass


class KilledError(Exception):
    """Stands for the end of the process."""


def answers_of(settings: CodeSettings) -> list[tuple[Any, ...]]:
    kept = read_answers(programs_path(Path(settings.home), TASK.id))
    return sorted((one.turn, one.number, one.view, one.text, round(one.logprob, 4)) for one in kept)


@pytest.fixture(scope="module")
def writer(model: Path, tmp_path_factory: pytest.TempPathFactory) -> CodeWriter:
    return load_writer(make_settings(model, tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def language() -> Iterator[PythonLanguage]:
    with PythonLanguage() as one:
        yield one


@pytest.fixture(scope="module")
def relabelled(language: PythonLanguage) -> list[RelabelledTask]:
    programs = [WrittenProgram(PROGRAMS[i], -1.0, view) for i, view in ((3, ""), (20, "r90.f.c0123456789.p201"))]
    return relabel(TASK, run_programs(language, TASK, programs), set())


def at_home(writer: CodeWriter, home: Path) -> CodeWriter:
    return replace(writer, settings=replace(writer.settings, home=str(home)))


class Recorder:
    """An engine that keeps the requests of another one."""

    name = "recorder"

    def __init__(self, engine: Engine):
        self.engine, self.context_length = engine, engine.context_length
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request], on_step: OnStep = None, deadline: float | None = None) -> Iterator[Completion]:
        self.asked += requests
        return self.engine.generate(requests, on_step, deadline)


@pytest.fixture(scope="module")
def whole(writer: CodeWriter, language: PythonLanguage, tmp_path_factory: pytest.TempPathFactory) -> CodeWriter:
    """With a task that has all its rounds."""
    here = replace(at_home(writer, tmp_path_factory.mktemp("whole")), engine=Recorder(writer.engine))  # type: ignore[arg-type]
    result = answer_task(here, language, TASK.id, 6, no_beat)
    assert (result.failed, result.unfinished, result.notes) == ("", 0, None)
    return here


def test_rounds_ask_more_programs_of_a_model_that_has_learnt(whole: CodeWriter, language: PythonLanguage) -> None:
    kept = answers_of(whole.settings)
    assert len({turn for turn, *_ in kept}) == 2 + 2 * whole.settings.code.learn_rounds
    assert len(kept) == 6 + 1 + 2 * 6
    folder = rounds_folder(Path(whole.settings.home), TASK.id)
    records = json.loads((folder / STATE).read_text())["records"]
    assert len(records) == 2
    assert records[1]["loss"] < records[0]["loss"]
    assert records[0]["written"] == sum(bool(text) for turn, _, _, text, _ in kept if turn <= 1), "the first round has written none"
    asked = {int(request.id.split("/")[1]): request.adapter for request in whole.engine.asked}  # type: ignore[attr-defined]
    adapters = [None if asked[turn] is None else asked[turn].parent.name for turn in sorted(asked)]
    assert adapters == [None, None, "learnt-1", "learnt-1", "learnt-2", "learnt-2"]
    assert list(folder.glob("learnt-*")) == [], "weights that nothing needs take no disk"
    again = answer_task(whole, language, TASK.id, 6, no_beat)
    assert (again.tokens, again.steps, again.notes) == (0, 0, None), "nothing is asked or learnt twice"


def test_a_kill_within_a_round_costs_the_answers_in_hand(
    whole: CodeWriter, writer: CodeWriter, language: PythonLanguage, tmp_path: Path
) -> None:
    """The kills come within the first programs, within the learning, and after half of the last round's programs."""
    here = at_home(writer, tmp_path)
    path, folder = programs_path(tmp_path, TASK.id), rounds_folder(tmp_path, TASK.id)
    last = max(turn for turn, *_ in answers_of(whole.settings))
    learning = [0]

    def learns() -> bool:
        learning[0] += folder.exists()
        return learning[0] > 3

    reasons: list[Callable[[], bool]] = [
        lambda: len(read_answers(path)) >= 3,
        learns,
        lambda: sum(one.turn == last for one in read_answers(path)) >= 2,
    ]
    counts = []
    for reached in reasons:

        def beat(*_: Any, reached: Callable[[], bool] = reached) -> None:
            if reached():
                raise KilledError

        with pytest.raises(KilledError):
            answer_task(here, language, TASK.id, 6, beat)
        counts.append(len(read_answers(path)))
    everything = answers_of(whole.settings)
    assert counts == sorted(set(counts))
    assert counts[-1] < len(everything)
    path.write_text(path.read_text() + '{"turn": 9, "num')  # the line that the kill cut short
    do = open_worker(asdict(here.settings), no_beat)  # what a worker that died had in memory is gone
    result = do({"tasks": [TASK.id]})["tasks"][TASK.id]
    assert (result["failed"], result["unfinished"]) == ("", 0)
    assert answers_of(here.settings) == everything
    assert len(read_answers(path)) == len({(one.turn, one.number) for one in read_answers(path)}), "nothing is asked twice"


@pytest.mark.campaign
def test_a_run_whose_worker_is_killed_within_a_round_has_the_programs_of_another(
    model: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    values = {"code_samples": 8, "code_turns": 1, "code_refined": 2, "code_tokens": 24, "code_learn_rounds": 2, "lora_rank": 4}
    values |= {"model": model, "sources": ("code",), "challenges": files[0], "tasks": 1, "workers": 1, "pictures": 0, "budget": 200.0}

    def kept(out: Path) -> list[Any]:
        return [one for path in out.glob("programs/*.jsonl") for one in read_answers(path)]

    def kill_within_a_round(out: Path) -> None:
        while sum(one.turn > 1 for one in kept(out)) < 4:
            sleep(0.02)
        started = [event["pid"] for event in RunPaths(out).read_events() if event["event"] == "worker_started"]
        os.kill(started[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_within_a_round, args=[tmp_path / "killed"], daemon=True)
    killer.start()
    for name in ("killed", "whole"):
        run(make_config("cpu-pocket", out=tmp_path / name, max_concurrent=2, **values))
    assert not killer.is_alive()
    events = RunPaths(tmp_path / "killed").read_events()
    assert sum(event["event"] == "worker_lost" for event in events) == 1
    first, second = (sorted((one.turn, one.number, one.view, one.text) for one in kept(tmp_path / name)) for name in ("killed", "whole"))
    assert first == second


def test_time_ends_a_round_and_what_is_there_answers_the_task(writer: CodeWriter, language: PythonLanguage, tmp_path: Path) -> None:
    looks: list[None] = []

    class UntilItLearns(float):
        """A moment that comes within the learning: its second pass finds no time left."""

        def __sub__(self, other: float) -> float:
            looks.extend([None] * rounds_folder(tmp_path, TASK.id).exists())
            return -1.0 if len(looks) > 2 else 1000.0

    result = answer_task(at_home(writer, tmp_path), language, TASK.id, 6, no_beat, UntilItLearns(1e12))
    assert (result.failed, result.unfinished) == ("", 1)
    assert result.made + result.held > 0
    assert len(looks) == 3
    assert not (rounds_folder(tmp_path, TASK.id) / STATE).exists(), "a round that is cut leaves no record"


def test_a_sample_asks_for_what_the_program_draws_in_the_frame_of_its_view(writer: CodeWriter, relabelled: list[RelabelledTask]) -> None:
    trainer = writer.trainer
    assert trainer is not None
    written = {(one.ran.program.view, one.ran.program.text): "def transform(grid):\n    return grid  # as written" for one in relabelled}
    for names in (written, {}):
        for one in relabelled:
            sample = CodeLearner(trainer, TASK, names, no_beat)._sample(one, trainer.sampler, 0)
            learned = trainer.sampler.tokenizer.tokenizer.decode([sample.ids[i] for i in sample.positions])
            assert ("# as written" if names else "(v1 + ") in learned
            assert learned.endswith("```<|im_end|>")
            for pair in one.task.train:
                assert "\n".join("".join(map(str, row)) for row in pair.output.tolist()) in trainer.sampler.tokenizer.tokenizer.decode(
                    sample.ids
                )


def test_learning_goes_on_from_the_saved_values_and_forgets_the_task_before(
    writer: CodeWriter, relabelled: list[RelabelledTask], tmp_path: Path
) -> None:
    def learner() -> CodeLearner:
        assert writer.trainer is not None
        return CodeLearner(writer.trainer, TASK, {}, no_beat)

    one = learner()
    losses = [one(relabelled, 2), one(relabelled, 5)]
    assert losses[1] < losses[0]
    one.save(tmp_path / "learnt-1")
    third = one(relabelled, 8)
    assert learner()(relabelled, 2) == losses[0], "another task begins with a fresh adapter"
    again = learner()
    again.load(tmp_path / "learnt-1")
    assert again.folder == one.folder
    assert again(relabelled, 8) == third


def test_learning_ends_where_its_caller_says(writer: CodeWriter, relabelled: list[RelabelledTask]) -> None:
    def late() -> None:
        raise TimeIsUpError("no time")

    assert writer.trainer is not None
    with pytest.raises(TimeIsUpError):
        CodeLearner(writer.trainer, TASK, {}, late)(relabelled, 0)


def test_what_cannot_learn_is_refused_and_the_default_changes_no_fingerprint(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"without the thinking before them"):
        make_config("cpu-pocket", sources=("code",), code_learn_rounds=1, code_thinking=100)
    with pytest.raises(ConfigError, match=r"takes no DoRA"):
        make_config("cpu-pocket", sources=("code",), code_learn_rounds=1, engine="vllm", lora_dora=True)
    plain = make_config("cpu-pocket", sources=("code",), out=tmp_path, challenges=files[0])
    data = load_data(plain)
    before = run_fingerprint(plain, data)
    assert not any("learn" in name or "lora" in name for name in before)
    learns = run_fingerprint(replace(plain, code=replace(plain.code, learn_rounds=2), lora=LoraSettings(rank=4)), data)
    assert (learns["code_learn_rounds"], learns["lora_rank"]) == (2, 4)
    assert run_fingerprint(replace(plain, code=replace(plain.code, learn_rate=0.5)), data) == before


def test_further_questions_are_steps_of_the_plan_and_cost_as_programs_do() -> None:
    values = {"code_samples": 8, "code_turns": 3, "code_refined": 4, "code_learn_rounds": 2, "code_tokens": 600}
    config = make_config("cpu-pocket", sources=("frozen", "code"), **values)
    ladder = code_ladder(config)
    assert [(one.steps, one.views) for one in ladder.levels] == [(0, 2), (0, 4), (3 * 4 + 2 * (8 + 12 + 8), 8)]
    assert ladder.plan == 2
    assert code_ladder(replace(config, code=replace(config.code, turns=0, learn_rounds=0))).levels[2].steps == 0
    frozen, code = (one.initial_costs() for one in rig_setup(config, Rig(1, "T4", 1e9), 3).lanes["model"])
    assert code.predict.rate == code.train.rate == pytest.approx(3 * frozen.predict.rate)


class Pupil:
    """A learner that changes nothing: it notes what it is taught and how many predictions there are by then."""

    def __init__(self, run: Path, fails: int = 0, error: Exception | None = None):
        self.run, self.fails, self.error = run, fails, error
        self.taught: list[list[WrittenProgram]] = []
        self.held: list[int] = []
        self.learnt, self.notes, self.folder = 0, [], None

    def __call__(self, relabelled: Sequence[RelabelledTask], seed: int) -> float:
        self.taught.append([one.ran.program for one in relabelled])
        self.held.append(len(read_predictions(RunPaths(self.run).predictions("code", TASK.id))[0]))
        if self.error is not None and len(self.taught) == self.fails:
            raise self.error
        return 1.0

    def save(self, folder: Path) -> None:
        (folder / "values").touch()

    def load(self, folder: Path) -> None:
        pass


@pytest.fixture
def scripted(model: Path, writer: CodeWriter, tmp_path: Path) -> CodeWriter:
    """A writer of other programs in each turn, which asks about none."""

    def answer(request: Request, question: str) -> str:
        _, turn, number = request.id.split("/")
        return f"```python\n{PROGRAMS[(6 * int(turn) + int(number)) % len(PROGRAMS)]}\n```"

    made = make_settings(model, tmp_path)
    settings = replace(made, code=replace(made.code, turns=0))
    return replace(writer, settings=settings, engine=ScriptedEngine(writer.tokenizer.tokenizer, answer))  # type: ignore[arg-type]


def test_what_is_learnt_first_does_not_depend_on_the_order_in_which_answers_ended(
    scripted: CodeWriter, language: PythonLanguage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under both views one text does the same, and one of the two is learnt."""
    texts = [f"def transform(grid):\n    return {result}" for result in ("grid", "grid[::-1, ::-1]", "(grid + 1) % 10")]
    answers = [Answer(0, n, -1, ("", "r90.f.c0123456789.p201")[n % 2], texts[n // 2], "", -1.0, 5) for n in range(6)]
    taught = []
    for order in (1, -1):
        path = programs_path(tmp_path / str(order), TASK.id)
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in answers[::order]))
        pupil = Pupil(tmp_path, 1, TimeIsUpError("no time"))
        monkeypatch.setattr(code_learner, "CodeLearner", lambda *_, pupil=pupil: pupil)
        answer_task(at_home(scripted, tmp_path / str(order)), language, TASK.id, 6, no_beat)
        taught += pupil.taught
    assert len(taught[0]) == 3
    assert taught[0] == taught[1]


def test_programs_are_run_once_with_beats_and_answer_the_task_before_they_are_learnt(
    scripted: CodeWriter, language: PythonLanguage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil, events = Pupil(tmp_path), []
    monkeypatch.setattr(code_learner, "CodeLearner", lambda *_: pupil)
    run = PythonLanguage.run
    monkeypatch.setattr(PythonLanguage, "run", lambda *args: (events.append("run"), run(*args))[1])
    result = answer_task(scripted, language, TASK.id, 6, lambda *_: events.append("beat"))
    assert (result.failed, result.unfinished) == ("", 0)
    assert 0 < pupil.held[0] < pupil.held[1] < (result.made or 0)
    assert events.count("run") == len(answers_of(scripted.settings)) == 3 * 6
    assert ("run", "run") not in set(pairwise(events))


def test_programs_that_the_time_left_no_room_for_are_run_by_the_next_job(
    scripted: CodeWriter, language: PythonLanguage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(code_learner, "CodeLearner", lambda *_: Pupil(tmp_path))
    answer_task(scripted, language, TASK.id, 6, no_beat)
    RunPaths(tmp_path).predictions("code", TASK.id).unlink()
    monkeypatch.setattr(code_task, "_AFTER", -1.0)
    late = answer_task(scripted, language, TASK.id, 6, no_beat, 0.0)
    assert (late.made, late.unfinished) == (0, 1)
    assert (answer_task(scripted, language, TASK.id, 6, no_beat).made or 0) > 0


@pytest.mark.parametrize("error", [FinetuneError("no memory"), DataError("a broken file")])
def test_a_task_whose_learning_fails_has_ended_and_keeps_no_weights(
    scripted: CodeWriter, language: PythonLanguage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pupil = Pupil(tmp_path, 2, error)
    monkeypatch.setattr(code_learner, "CodeLearner", lambda *_: pupil)
    result = answer_task(scripted, language, TASK.id, 6, no_beat)
    assert (result.failed, result.unfinished, result.notes) == ("", 0, [f"no further learning: {error}"])
    folder = rounds_folder(tmp_path, TASK.id)
    assert sorted(one.name for one in folder.iterdir()) == ["ended", STATE]
    assert answer_task(scripted, language, TASK.id, 6, no_beat).notes is None, "it does not begin again"


def test_programs_that_memory_does_not_suffice_for_are_left_out(
    writer: CodeWriter, relabelled: list[RelabelledTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = writer.trainer
    assert trainer is not None
    long = relabelled[1].ran.program
    written = {(long.view, long.text): long.text + "  # long" * 100}
    learner = CodeLearner(trainer, TASK, written, no_beat)
    lengths = [len(learner._sample(one, trainer.sampler, i).ids) for i, one in enumerate(relabelled)]
    room = [lengths[0] + 200]
    scarce(monkeypatch, lambda number, batch: batch.ids.shape[1] > room[0])
    loss = learner(relabelled, 2)
    assert learner.learnt == 1
    reason = r"task thrice: memory suffices for learning from samples of at most \d+ tokens"
    assert re.fullmatch(f"{reason}; 1 of 2 programs are left out", learner.notes[0])
    assert loss == pytest.approx(CodeLearner(trainer, TASK, {}, no_beat)(relabelled[:1], 2), abs=1e-5)
    room[0] = 300
    with pytest.raises(FinetuneError, match=f"{reason}, which is too few: no sample"):
        learner(relabelled, 2)


def test_the_memory_plan_decides_how_programs_are_learnt(
    model: Path, writer: CodeWriter, relabelled: list[RelabelledTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, trainer = read_shape(model), writer.trainer
    assert shape is not None
    assert trainer is not None
    footprint = Footprint(shape, writer.settings.lora)
    long = relabelled[1].ran.program
    written = {(long.view, long.text): long.text + "  # long" * 100}
    lengths = [len(CodeLearner(trainer, TASK, written, no_beat)._sample(one, trainer.sampler, i).ids) for i, one in enumerate(relabelled)]
    passes = scarce(monkeypatch, lambda number, batch: False)

    def learn(room: int) -> tuple[float, CodeLearner]:
        passes.clear()
        learner = CodeLearner(replace(trainer, card=Card(room, footprint)), TASK, written, no_beat)
        return learner(relabelled, 2), learner

    loss, learner = learn(footprint.training_peak(max(lengths), max(lengths), False))
    expected = CodeLearner(trainer, TASK, written, no_beat)(relabelled, 2)
    assert (loss, learner.learnt, learner.notes) == (pytest.approx(expected, abs=1e-6), 2, [])
    limit = max(lengths[0], SHORTEST_SAMPLE) + 64
    assert limit < max(lengths)
    _, learner = learn(footprint.training_peak(limit, limit, True))
    assert learner.learnt == 1
    assert learner.notes[0].endswith("1 of 2 programs are left out")
    assert all(length <= limit for _, length in passes), "the plan knows it before memory is lacking"


def test_the_worker_takes_the_plan_of_its_card(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    shape = read_shape(model)
    assert shape is not None
    footprint = Footprint(shape, LoraSettings(rank=4))
    room = footprint.prediction_peak(2, 8192, True)

    def limits(settings: Any, device: Any, tokenizer: Any, *others: Any) -> MemoryLimits:
        asked.append(others)
        return MemoryLimits(Card(room, footprint), words_of(tokenizer), True)

    monkeypatch.setattr(code_learner, "find_memory_limits", limits)
    settings = make_settings(model, tmp_path)
    settings = replace(settings, predict=replace(settings.predict, slots=16, max_seq_len=8192))
    writer = load_writer(settings)
    assert writer.trainer is not None
    assert writer.trainer.card == Card(room, footprint)
    assert asked == [(settings.lora, True, 0)]
    assert isinstance(writer.engine, TransformersEngine)
    assert writer.engine.slots == 2


def test_a_model_that_cannot_be_trained_is_refused_before_the_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("cpu-pocket", model=model, sources=("code",), engine="vllm")
    monkeypatch.setattr(Qwen2ForCausalLM, "_supports_sdpa", False)
    assert _check_model(config) is not None, "vllm has attention of its own"
    for engine in ("vllm", "auto", "transformers"):
        with pytest.raises(ConfigError, match=r"layers that torch's attention kernels cannot compute"):
            _check_model(replace(config, code=replace(config.code, learn_rounds=1), engine=engine))
