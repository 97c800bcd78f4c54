"""One task looked at closely: what the model is shown of it, and each source's answers one by one.

For the notebook that is open beside a task that fails. Reads a finished run's directory; knows nothing about solutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.ensemble.voting import basis_of
from arc_submit.report.prompt_text import show_turns
from arc_submit.run.config import RunConfig
from arc_submit.storage.run_dir import RunPaths

_SHOWN = 10


@dataclass(frozen=True)
class ShownPrompt:
    """One prompt of a task.

    Attributes:
        test: index of the test input.
        view: key of the view.
        tokens: of the prompt.
        answer_tokens: that the answer may take.
        text: the prompt for people: the template's text in one line with grids by their sizes, then each turn with grids in colours.
    """

    test: int
    view: str
    tokens: int
    answer_tokens: int
    text: str


def read_prompts(config: RunConfig, task_id: str) -> tuple[list[ShownPrompt], list[str]]:
    """Every prompt that a run asks the model as it is about a task, and a line for each that fits no limit.

    Loads the model's tokenizer and nothing else of it.

    Raises:
        ArcSubmitError: where the run has no such task, or the model cannot be asked as configured.
    """
    from arc_submit.base_model.loading import load_tokenizer
    from arc_submit.inference.requests import plan_requests
    from arc_submit.inference.settings import RequestSettings
    from arc_submit.language.prompt_tokenizer import PromptTokenizer

    task = read_task(RunPaths(config.out).task(task_id))
    how = config.prompt_config()
    writer = PromptTokenizer.from_config(load_tokenizer(config.model), how)
    planned, refused = plan_requests(writer, task, RequestSettings(config.views, config.seed, how.max_seq_len, config.keep_background))
    prompts = []
    for asked in planned:
        seen = asked.view.apply_task(task)
        turns = writer.prompt.turns([seen.train[i] for i in asked.train_indices], seen.tests[asked.test])
        text = f"{writer.outline(turns)}\n\n{show_turns(turns)}"
        prompts.append(ShownPrompt(asked.test, asked.view.key, len(asked.request.prompt), asked.request.max_new_tokens, text))
    return prompts, refused


def prompts_table(prompts: list[ShownPrompt], refused: list[str]) -> str:
    """A line for each prompt: its test input and view, its tokens and those its answer may take; then what did not fit."""
    lines = [f"{'test':>4}{'tokens':>8}{'answer':>8}  view"]
    lines += [f"{prompt.test:>4}{prompt.tokens:>8}{prompt.answer_tokens:>8}  {prompt.view}" for prompt in prompts]
    return "\n".join(lines + sorted(set(refused)))


def answers_table(run: Path, task_id: str, source: str) -> str:
    """A source's predictions for a task, the best first for each test input: score, size, and the program or view that made each."""
    path = RunPaths(run).predictions(source, task_id)
    predictions = read_predictions(path)[0] if path.is_file() else []
    if not predictions:
        return f"{source}: no predictions"
    lines = [f"{source}: {len(predictions)} predictions", f"{'test':>4}{'score':>10}{'size':>8}  made by"]
    for test in sorted({prediction.test for prediction in predictions}):
        best = sorted((p for p in predictions if p.test == test), key=lambda p: (p.grid is None, -p.logprob))
        lines += [_answer_line(prediction) for prediction in best[:_SHOWN]]
    return "\n".join(lines)


def _answer_line(prediction: Prediction) -> str:
    size = "none" if prediction.grid is None else f"{prediction.grid.shape[0]}x{prediction.grid.shape[1]}"
    made_by = prediction.model if basis_of(prediction) == "score" else prediction.view
    if prediction.program:
        made_by += f"  a program, right on {prediction.fits[0]} of {prediction.fits[1]} train pairs"
    return f"{prediction.test:>4}{prediction.logprob:>10.2f}{size:>8}  {made_by}{f'  ({prediction.reason})' if prediction.reason else ''}"
