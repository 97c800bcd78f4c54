"""The source code: what a model is asked, the program in its answer, refinement, predictions, resuming, and a run with a tiny model."""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import source_named
from program_writer import TEMPLATE, make_model, make_tokenizer

from arc_submit.arc.datasets import Challenges
from arc_submit.arc.grid import make_grid
from arc_submit.arc.prediction import Prediction, prediction_from_line, read_predictions
from arc_submit.arc.task import Pair, Task, task_to_json
from arc_submit.arc.views import View
from arc_submit.ensemble.combination import EnsembleConfig, combine_sources, rank_all
from arc_submit.ensemble.program_odds import program_odds
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.programs.code_answers import programs_path, read_answers
from arc_submit.programs.code_prompt import code_prompt, extract_program
from arc_submit.programs.code_settings import CODE_PROMPT, CODE_PROMPTS, CodeSettings
from arc_submit.programs.code_worker import answer_task, open_worker
from arc_submit.programs.code_writer import CodeWriter
from arc_submit.programs.interface import ProgramError
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.refinement import Arm, choose_arms
from arc_submit.report.html_page import Page, render
from arc_submit.report.summary import ReportData, _program_sections
from arc_submit.run.named_sources import source_config
from arc_submit.run.orchestrator import describe_result
from arc_submit.run.pipeline import run
from arc_submit.run.presets import make_config
from arc_submit.run.source_code import check_code
from arc_submit.storage.run_dir import RunPaths

RIGHT = "def transform(grid):\n    return grid[:, ::-1]"
WRONG = "def transform(grid):\n    return grid[::-1]"
BROKEN = "def transform(grid):\n    return grid[99]"


class ScriptedEngine:
    """An engine that answers given texts; `asked` keeps the requests."""

    name, context_length = "scripted", 100_000

    def __init__(self, tokenizer: Any, answer: Callable[[Request, str], str]):
        self.tokenizer, self.answer = tokenizer, answer
        self.asked: list[tuple[Request, str]] = []

    def generate(self, requests: Sequence[Request], on_step: Any = None, deadline: Any = None) -> Iterator[Completion]:
        for request in requests:
            question = self.tokenizer.decode(request.prompt)
            self.asked.append((request, question))
            tokens = self.tokenizer.encode(self.answer(request, question))
            whole = len(tokens) < request.max_new_tokens
            tokens = [*tokens, self.tokenizer.eos_token_id] if whole else tokens[: request.max_new_tokens]
            yield Completion(request.id, tokens, -1.0, "stop" if whole else "length", 0.1)


TOKENIZER = make_tokenizer()
PROMPTER = PromptTokenizer(TOKENIZER, make_encoder("MinimalGridEncoder()"), prompt_version("output-from-examples-v1"))


def make_task() -> Task:
    rng = np.random.default_rng(5)
    grids = [make_grid(rng.integers(0, 10, (3, 4)).tolist()) for _ in range(4)]
    return Task("mirror", tuple(Pair(grid, make_grid(grid[:, ::-1].tolist())) for grid in grids[:3]), (grids[3],))


@pytest.fixture
def settings(tmp_path: Path) -> CodeSettings:
    config = make_config(
        "cpu-pocket",
        sources=("code",),
        out=tmp_path,
        code_samples=4,
        code_views=1,
        code_turns=2,
        code_refined=2,
        code_tokens=300,
        max_seq_len=6000,
    )
    value = source_named("code", config).backends[0].settings_for(0)
    task = make_task()
    RunPaths(tmp_path).task(task.id).parent.mkdir(parents=True, exist_ok=True)
    RunPaths(tmp_path).task(task.id).write_text(json.dumps({task.id: task_to_json(task)}))
    return CodeSettings.from_json(value)


@pytest.fixture(scope="module")
def language() -> Iterator[PythonLanguage]:
    with PythonLanguage() as one:
        yield one


def writer_of(settings: CodeSettings, answer: Callable[[Request, str], str]) -> tuple[CodeWriter, ScriptedEngine]:
    engine = ScriptedEngine(TOKENIZER, answer)
    return CodeWriter(engine, PROMPTER, code_prompt(CODE_PROMPT), settings, 6000), engine  # type: ignore[arg-type]


def predictions_of(settings: CodeSettings) -> list[Prediction]:
    return read_predictions(RunPaths(Path(settings.predict.run)).predictions("code", "mirror"))[0]


def no_beat(*_: Any) -> None:
    pass


def one_first(settings: CodeSettings) -> CodeSettings:
    """The settings of a run with one first program for each task."""
    return replace(settings, code=replace(settings.code, samples=1))


def test_a_right_program_becomes_a_right_prediction(settings: CodeSettings, language: PythonLanguage) -> None:
    texts = [WRONG, f"I see.\n```python\n{RIGHT}\n```\n", "no idea", BROKEN]
    writer, engine = writer_of(settings, lambda request, question: texts[int(request.id.rpartition("/")[2])])
    result = answer_task(writer, language, "mirror", 4, no_beat)
    assert (result.failed, result.answered, result.malformed, result.unfinished) == ("", 4, 1, 0)
    assert len(engine.asked) == 4, "a program that reproduces all pairs ends the task"
    assert [request.temperature for request, _ in engine.asked] == [0.1, 0.8, 0.8, 0.8]
    assert result.programs == {"grids": 2, "none": 1, "value": 1}
    source = SimpleNamespace(source_kind="code", name="code")
    told = describe_result(source, result, predictions_of(settings))  # type: ignore[arg-type]
    assert told == "2 predictions; programs by what they gave: grids 2, none 1, value 1; the best program right on 3 of 3 train pairs"
    task = make_task()
    first, *others = predictions_of(settings)
    assert first.fits == (3, 3)
    assert first.program == language.normal_form(RIGHT)
    assert first.grid is not None
    assert np.array_equal(first.grid, task.tests[0][:, ::-1])
    assert [one.fits for one in others] == [(0, 3)]
    ranked = combine_sources(rank_all(predictions_of(settings)), EnsembleConfig(order=("code",)))
    best = ranked.answers["mirror", 0][0]
    assert np.array_equal(best.grid, first.grid)
    assert best.probability == pytest.approx(0.63)
    assert rank_all(predictions_of(settings))["code"]["mirror", 0][0].program == first.program
    assert best.backing == ("code 1 programs, the best right on 3 of 3 train pairs (0.63)",)


def test_a_wrong_program_is_shown_back_and_repaired(settings: CodeSettings, language: PythonLanguage) -> None:
    def answer(request: Request, question: str) -> str:
        if "This program" not in question:
            return WRONG if request.id.endswith("/0") else BROKEN
        return RIGHT if "is right for 0 of 3" in question else BROKEN

    writer, engine = writer_of(replace(settings, code=replace(settings.code, samples=2)), answer)
    answer_task(writer, language, "mirror", 2, no_beat)
    shown = [question for _, question in engine.asked[2:]]
    assert any("it gives:" in question and "grid[::-1]" in question for question in shown)
    kept = read_answers(programs_path(Path(settings.home), "mirror"))
    assert all(one.parent in (0, 1) for one in kept if one.turn == 1)
    assert predictions_of(settings)[0].fits == (3, 3)


def test_the_error_of_a_program_is_shown_back_in_its_own_names(settings: CodeSettings, language: PythonLanguage) -> None:
    broken = "def paint(grid, colour):\n    return grid\n\ndef transform(picture):\n    return paint(picture)"
    writer, engine = writer_of(one_first(settings), lambda request, question: RIGHT if "This program" in question else broken)
    answer_task(writer, language, "mirror", 1, no_beat)
    assert len(engine.asked) == 3
    question = engine.asked[1][1]
    assert "This program fails for every input: type: paint" in question
    assert "colour" in question.rpartition("fails")[2]
    assert predictions_of(settings)[0].fits == (3, 3)


def test_a_program_that_fails_on_some_inputs_is_shown_which(settings: CodeSettings, language: PythonLanguage) -> None:
    """Examples are counted from 1, as the question counts them; what the program draws for the others is still used."""
    task = make_task()
    for failing, right, where in ((task.train[1].input, 2, "example 2"), (task.tests[0], 3, "the test input")):
        text = f"def transform(grid):\n    return [] if list(grid[0]) == {failing[0].tolist()} else grid[:, ::-1]"
        here = replace(one_first(settings), home=f"{settings.home}/{right}")
        writer, engine = writer_of(here, lambda request, question, text=text: RIGHT if "is right" in question else text)  # type: ignore[misc]
        answer_task(writer, language, "mirror", 1, no_beat)
        wrong = f"This program is right for {right} of 3 examples.\n\nIt fails for {where}. For {where} the error is: output: "
        assert wrong in engine.asked[1][1]
        assert "input 1" not in engine.asked[1][1]
    assert sorted(one.fits for one in predictions_of(settings)) == [(2, 3), (3, 3)], "the second program has no output for the test"


def test_a_solved_task_asks_nothing_more_and_jobs_in_turn_ask_what_one_job_does(settings: CodeSettings, language: PythonLanguage) -> None:
    def asked(home: str, answer: str, *samples: int) -> list[tuple[str, list[int], int | None]]:
        here = replace(settings, home=f"{settings.home}/{home}")
        writer, engine = writer_of(here, lambda request, question: answer)
        for count in samples:
            answer_task(writer, language, "mirror", count, no_beat)
        return [(request.id, list(request.prompt), request.seed) for request, _ in engine.asked]

    assert asked("turns", WRONG, 1, 2, 4) == asked("once", WRONG, 4)
    assert len(asked("solved", RIGHT, 1, 2, 4)) == 1


def test_programs_are_written_in_the_frame_of_a_view(settings: CodeSettings, language: PythonLanguage) -> None:
    """Turned by a quarter, a mirrored grid is mirrored along the other axis; the answers are the same."""
    writer, _ = writer_of(
        replace(settings, code=replace(settings.code, views=8, turns=0)),
        lambda request, question: RIGHT if request.id.endswith("0") else WRONG,
    )
    answer_task(writer, language, "mirror", 8, no_beat)
    right = [one for one in predictions_of(settings) if one.fits == (3, 3)]
    assert len({one.view for one in right}) == len(right) > 2
    assert len({one.program for one in right}) == 2
    grid = right[0].grid
    assert grid is not None
    assert all(one.grid is not None and np.array_equal(one.grid, grid) for one in right)


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_killed_task_goes_on_with_the_next_question(settings: CodeSettings, language: PythonLanguage, tmp_path: Path) -> None:
    def answer(request: Request, question: str) -> str:
        return f"def transform(grid):\n    return grid + {int(request.id[-1]) + 2 * int(request.id[-3])}"

    def lines(one: CodeSettings) -> list[tuple[Any, ...]]:
        kept = read_answers(programs_path(Path(one.home), "mirror"))
        parents = [(kept[one.parent].turn, kept[one.parent].number) if one.parent >= 0 else () for one in kept]
        return sorted((one.turn, one.number, parent, one.text) for one, parent in zip(kept, parents, strict=True))

    whole = replace(settings, home=str(tmp_path / "whole"))
    answer_task(writer_of(whole, answer)[0], language, "mirror", 4, no_beat)
    count = len(lines(whole))
    assert count == 8
    asked: list[str] = []

    def killed(request: Request, question: str) -> str:
        if len(asked) in (2, 5):
            asked.append("killed")
            raise KilledError
        asked.append(request.id)
        return answer(request, question)

    writer, _ = writer_of(settings, killed)
    for _ in range(2):
        with pytest.raises(KilledError):
            answer_task(writer, language, "mirror", 4, no_beat)
    path = programs_path(Path(settings.home), "mirror")
    path.write_text(path.read_text() + '{"turn": 1, "num')  # the line that the kill cut short
    answer_task(writer, language, "mirror", 4, no_beat)
    assert len(set(asked)) == len(asked) - 1, "no question is asked twice"
    assert lines(settings) == lines(whole)
    again = answer_task(writer, language, "mirror", 4, no_beat)
    assert (again.made, again.held) == (0, len(predictions_of(settings)))


def test_time_ends_a_task_and_what_is_there_answers_it(settings: CodeSettings, language: PythonLanguage) -> None:
    writer, engine = writer_of(settings, lambda request, question: WRONG)
    result = answer_task(writer, language, "mirror", 4, no_beat, deadline=0.0)
    assert (result.answered, result.unfinished, engine.asked) == (0, 4, [])


def test_long_thinking_is_cut_and_the_program_asked_for(settings: CodeSettings, language: PythonLanguage) -> None:
    def answer(request: Request, question: str) -> str:
        return f"{RIGHT}\n```" if question.endswith("</think>\n\n```python\n") else "<think>" + "hm " * 1000

    writer, engine = writer_of(replace(settings, code=replace(settings.code, thinking=100)), answer)
    answer_task(writer, language, "mirror", 1, no_beat)
    assert [request.max_new_tokens for request, _ in engine.asked] == [400, 300]
    assert predictions_of(settings)[0].fits == (3, 3)


def thinking_prompter() -> PromptTokenizer:
    """With a template that opens the thinking in the prompt where it is switched on, and else writes that there is none."""
    template = TEMPLATE.replace("{% endif %}", "{% if enable_thinking %}<think>\n{% endif %}{% endif %}")
    return PromptTokenizer(TOKENIZER, PROMPTER.encoder, PROMPTER.prompt, True, template)


def test_thinking_that_the_template_opens_is_recognised(settings: CodeSettings, language: PythonLanguage) -> None:
    """A draft in the thoughts is no answer, and long thoughts are cut."""
    prompter = thinking_prompter()
    draft = f"```python\n{WRONG}\n```\n"
    answers = [f"{draft}</think>\n```python\n{RIGHT}\n```", draft, draft + "hm " * 1000]

    def answer(request: Request, question: str) -> str:
        return f"{RIGHT}\n```" if question.endswith("</think>\n\n```python\n") else answers[int(request.id[-1])]

    writer, engine = writer_of(replace(settings, code=replace(settings.code, thinking=100, turns=0)), answer)
    answer_task(replace(writer, tokenizer=prompter), language, "mirror", 1, no_beat)
    assert not engine.asked[0][1].endswith("<think>\n"), "a model thinks only where it is let"
    prompter.let_think()
    here = replace(settings, code=replace(settings.code, thinking=100, turns=0), home=f"{settings.home}/on")
    writer, engine = writer_of(here, answer)
    for i in range(3):
        answers[0] = answers[i]
        there = replace(here, home=f"{here.home}{i}")
        answer_task(replace(writer, tokenizer=prompter, settings=there), language, "mirror", 1, no_beat)
        (kept,) = read_answers(programs_path(Path(there.home), "mirror"))
        assert (kept.text, kept.problem) == (("", "the answer ends within its thinking") if i == 1 else (RIGHT, ""))
    assert all(question.endswith("<think>\n") for request, question in engine.asked[:3])
    assert len(engine.asked) == 4


@pytest.mark.parametrize("slack", [0, 30])
def test_cut_thinking_keeps_its_ending_where_the_question_fills_its_room(
    settings: CodeSettings, language: PythonLanguage, slack: int
) -> None:
    def answer(request: Request, question: str) -> str:
        return f"{RIGHT}\n```" if question.endswith("</think>\n\n```python\n") else "<think>" + "hm " * 1000

    writer, engine = writer_of(replace(settings, code=replace(settings.code, thinking=100, turns=0)), answer)
    answer_task(writer, language, "mirror", 1, no_beat)
    length = len(engine.asked[0][0].prompt) + 400 + slack
    writer, engine = writer_of(replace(settings, code=replace(settings.code, thinking=100, turns=0), home=f"{settings.home}/full"), answer)
    result = answer_task(replace(writer, max_seq_len=length), language, "mirror", 1, no_beat)
    assert result.malformed == 0
    assert engine.asked[1][0].max_new_tokens == 300, "the ending takes no room from the program"
    assert all(len(request.prompt) + request.max_new_tokens <= length for request, _ in engine.asked)


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        (f"```python\n{RIGHT}\n```\nA check:\n```python\ndef test():\n    return transform([[1]])\n```", RIGHT),
        ("1. So:\n   ```python\n   def transform(grid):\n       return grid[:, ::-1]\n   ```", RIGHT),
        (f"<think>```python\n{WRONG}\n```</think>So:\n```python\n{RIGHT}\n```", RIGHT),
        (f"```\n{WRONG}\n```\nBetter:\n```py\n{RIGHT}", RIGHT),
        (f"{RIGHT}\n", RIGHT),
        (f"The program:\n{RIGHT}", RIGHT),
        (f"```python\nimport numpy as np\nfrom typing import List\n{RIGHT}\nprint(transform([[1]]))\n```", f"import numpy as np\n{RIGHT}"),
        (f"<|channel|>analysis<|message|>{WRONG}<|end|><|start|>assistant<|channel|>final<|message|>```python\n{RIGHT}\n```", RIGHT),
    ],
)
def test_the_program_in_an_answer(answer: str, program: str) -> None:
    assert extract_program(answer) == program


@pytest.mark.parametrize(
    "answer", ["", "I do not know.", f"<think>{RIGHT}", "<|channel|>analysis<|message|>def f(x): return x", "```\nx = 1\n```"]
)
def test_an_answer_without_a_program(answer: str) -> None:
    with pytest.raises(ProgramError, match=r"holds no program|within its thinking"):
        extract_program(answer)


def test_questions_about_programs_go_to_the_promising_ones() -> None:
    arms = [Arm(0.0, 0.1, 0), Arm(0.5, 0.9, 0), Arm(0.0, 0.5, 0)]
    chosen = choose_arms(arms, 200, np.random.default_rng(0))
    counts = [chosen.count(i) for i in range(3)]
    assert counts[1] == max(counts)
    assert counts[0] > 0, "each question lowers the chance of its program"
    assert chosen == choose_arms(arms, 200, np.random.default_rng(0))
    assert choose_arms([], 3, np.random.default_rng(0)) == []


def test_the_odds_of_programs_follow_the_table() -> None:
    def probabilities(*answers: tuple[tuple[int, int], ...]) -> list[float]:
        odds = program_odds(answers)
        return [one / (1 + sum(odds)) for one in odds]

    for pairs, right in ((1, 0.33), (2, 0.51), (3, 0.63), (5, 0.63)):
        assert probabilities(((pairs, pairs),))[0] == pytest.approx(right)
    first, second, partly = probabilities(((3, 3), (3, 3)), ((3, 3),), ((2, 3),))
    assert first == pytest.approx(0.42)
    assert second == pytest.approx(0.21)
    assert 0 < partly < 0.02
    assert probabilities(((0, 3),), ((2, 3), (1, 3))) == pytest.approx([0.0, 0.05 * 2 / 3 / 2])


def test_a_prediction_without_a_program_is_written_as_before() -> None:
    plain = Prediction("t", 0, make_grid([[1]]), "frozen", "", -1.0, "m", 0.5)
    assert set(json.loads(plain.to_line())) == {"task", "test", "grid", "source", "view", "logprob", "model", "seconds"}
    one = replace(plain, source="code", program=RIGHT, fits=(2, 3))
    assert prediction_from_line(one.to_line()).fits == (2, 3)
    assert prediction_from_line(one.to_line()).program == RIGHT


def test_what_cannot_work_is_refused_in_one_line(settings: CodeSettings) -> None:
    config = make_config("cpu-pocket", sources=("code",), code_tokens=1000)
    with pytest.raises(ConfigError, match=r"leave 200 of 1200 tokens for the question"):
        check_code(config, 1200)
    with pytest.raises(
        ConfigError, match=r"pocket: its vocabulary cannot write the question code-from-examples-v1; .*--search-proposals writer"
    ):
        check_code(config, 8000)
    with pytest.raises(ConfigError, match=r"--code-prompt none\.jinja: cannot be read"):
        check_code(replace(config, code=replace(config.code, prompt="none.jinja")), 8000)
    with pytest.raises(ConfigError, match=r"choose from code-from-examples-v0, code-from-examples-v1,"):
        check_code(replace(config, code=replace(config.code, prompt="no-such")), 8000)
    assert asdict(settings) == asdict(CodeSettings.from_json(json.loads(json.dumps(asdict(settings)))))


def test_the_words_of_a_question_never_change() -> None:
    pairs = [Pair(make_grid([[1]]), make_grid([[2]])), Pair(make_grid([[3]]), make_grid([[4]]))]
    digests = {}
    for name in CODE_PROMPTS:
        turns = code_prompt(name).turns(pairs, make_grid([[5]]))
        words = [[turn.role, *(part if isinstance(part, str) else part.tolist() for part in turn.parts)] for turn in turns]
        digests[name] = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    assert digests == {"code-from-examples-v0": "9e1807ccae443c73", "code-from-examples-v1": "d9bab61b9be7001e"}


def test_the_newest_question_names_what_a_program_may_import_and_what_it_may_not_use(language: PythonLanguage) -> None:
    (system,) = code_prompt(CODE_PROMPT).turns([], make_grid([[1]]))[0].parts
    listed = str(system).partition("Import only from ")[2].partition(". Use no")[0]
    modules = re.split(r",? and |, ", listed)
    assert len(modules) == 10
    for module in modules:
        assert language.normal_form(f"import {module}\n{RIGHT}") == language.normal_form(RIGHT)
    for line in ("class A:\n    pass", "match grid:\n    case 1:\n        pass", "with grid:\n    pass", "import random"):
        with pytest.raises(ProgramError, match=r"forbidden: line \d: "):
            language.normal_form(f"def transform(grid):\n{textwrap.indent(line, '    ')}\n    return grid")


def test_a_run_goes_on_with_the_question_that_it_began_with(tmp_path: Path) -> None:
    old, new = CODE_PROMPTS
    plain = {"sources": ("code",), "out": tmp_path}
    named = {"sources": ("search", "programs"), "source": ("programs=code:code_tokens=300",), "out": tmp_path}

    def asked(**given: Any) -> str:
        config = make_config("cpu-pocket", **given)
        return source_config(config, "programs").code.prompt if config.definitions else config.code.prompt

    assert asked(**plain) == asked(**named) == new
    RunPaths(tmp_path).config.write_text(json.dumps({"code_prompt": old}))
    assert (asked(**plain), asked(**named)) == (old, new)
    assert asked(**plain, code_prompt=new) == new, "which the fingerprint refuses"
    RunPaths(tmp_path).config.write_text(json.dumps({"programs.code_prompt": old}))
    assert (asked(**plain), asked(**named)) == (new, old)
    RunPaths(tmp_path).config.write_text(json.dumps({"code_prompt": "0123456789abcdef"}))
    assert asked(**plain) == new, "the digest of a file is no name"


@pytest.fixture(scope="module")
def tiny_writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that reads and writes bytes."""
    folder = tmp_path_factory.mktemp("writer")
    make_model(folder, programs=False)
    return folder


def test_a_worker_with_a_random_model_finds_no_program(settings: CodeSettings, tiny_writer: Path) -> None:
    small = replace(
        settings,
        code=replace(settings.code, tokens=16),
        predict=replace(settings.predict, model=str(tiny_writer), max_seq_len=None, slots=2),
    )
    do = open_worker(asdict(small), no_beat)
    result = do({"tasks": ["mirror", "missing"], "views": 2})["tasks"]
    assert (result["mirror"]["answered"], result["mirror"]["malformed"], result["mirror"]["failed"]) == (2, 2, "")
    assert "missing" in result["missing"]["failed"]
    assert do({"tasks": ["mirror"], "views": 2})["tasks"]["mirror"]["tokens"] == 0, "nothing is asked twice"


@pytest.mark.campaign
def test_a_run_with_a_random_model(tmp_path: Path, files: tuple[Path, Path], tiny_writer: Path) -> None:
    """Its answers hold no programs; the run ends, says so, and resumes without asking again."""
    options = {"code_samples": 2, "code_turns": 1, "code_tokens": 24, "tasks": 1, "pictures": 0, "budget": 100.0}
    config = make_config(
        "cpu-pocket", model=tiny_writer, sources=("code",), out=tmp_path / "run", challenges=files[0], workers=1, **options
    )
    run(config)
    events = RunPaths(config.out).read_events()
    done = [event for event in events if event["event"] == "task_done"]
    assert [(event["source"], event["answered"], event["malformed"]) for event in done] == [("code", 2, 2)]
    assert (config.out / "submission.json").exists()
    run(config)
    assert sum(event["event"] == "task_done" for event in RunPaths(config.out).read_events()) == 1


def test_the_report_shows_a_program_beside_its_grids(tmp_path: Path) -> None:
    task = make_task()
    grid = make_grid(task.tests[0][:, ::-1].tolist())
    text = "def transform(grid):\n    return grid[:, ::-1] if 1 < 2 else 0"
    found = Prediction(task.id, 0, grid, "code", "", -1.0, "m", 0.5, program=text, fits=(3, 3))
    partly = replace(found, task="other", fits=(2, 3))
    tasks = {task.id: task, "other": Task("other", task.train, task.tests)}
    data = ReportData(Challenges(tasks), [found, partly], {}, ensemble=EnsembleConfig(order=("code",)))
    (section,) = _program_sections(data)
    page = render(Page("title", "subtitle", programs=[section]))
    assert "Programs that reproduce all train pairs: 1" in page
    assert section.summary == "code"
    assert "return grid[:, ::-1] if 1 &lt; 2 else 0</pre>" in page


def test_the_report_shows_the_grids_of_a_program_under_its_view() -> None:
    task = make_task()
    view = View(1, False, (1, 0, *range(2, 10)), (2, 0, 1))
    grid = make_grid(task.tests[0][:, ::-1].tolist())
    found = Prediction(task.id, 0, grid, "code", view.key, -1.0, "m", 0.5, program=WRONG, fits=(3, 3))
    other = replace(found, grid=task.tests[0], view="", fits=(1, 3))
    data = ReportData(Challenges({task.id: task}), [other, found], {}, ensemble=EnsembleConfig(order=("code",)))
    (section,) = _program_sections(data)
    assert section.summary == f"code, all under the view {view.key}"
    shown = [*section.pairs, tuple(one.grid for one in section.rows[0][1])]
    assert len(shown) == 4
    assert all(np.array_equal(before[::-1], after) for before, after in shown), "the program of the text turns each into the other"
