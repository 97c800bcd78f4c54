"""A loaded model that writes programs: how it is loaded, and the programs in its answers.

Does not know tasks, turns or files of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from arc_submit.inference.engine import Completion, Engine, Request
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PromptVersion
from arc_submit.programs.code_prompt import check_vocabulary, code_prompt, extract_program, opened_thinking, thinking_of
from arc_submit.programs.code_settings import CodeSettings
from arc_submit.programs.interface import ProgramError

if TYPE_CHECKING:
    from arc_submit.programs.code_learner import CodeTrainer  # with torch, which takes seconds

_LAST_TOKENS = 64  # of a question, which hold the mark that opens the thinking, even where each byte is a token


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


def load_writer(settings: CodeSettings) -> CodeWriter:
    """The model with what it is asked, and what trains it in rounds of learning.

    Raises:
        ArcSubmitError: where the model or its question cannot work.
    """
    from arc_submit.base_model.cpu import use_cpu

    use_cpu(settings.predict.threads)
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


def completions(
    writer: CodeWriter, requests: Sequence[Request], beat: Callable[[], None], deadline: float | None
) -> Iterator[tuple[Request, Completion]]:
    """The completion of each request; one that thinks to its end is asked once more for the program alone.

    Args:
        beat: called after every step of the engine.
        deadline: on the monotonic clock.
    """
    by_id = {one.id: one for one in requests}
    cut: dict[str, tuple[Request, Completion]] = {}
    for completion in writer.engine.generate(requests, beat, deadline):
        request = by_id[completion.id]
        cuts = completion.finished == "length" and writer.settings.code.thinking > 0
        marks = thinking_of(_text(writer, request, completion)) if cuts else None
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
        for completion in writer.engine.generate([request for request, _ in cut.values()], beat, deadline):
            first = cut[completion.id][1]
            both = replace(completion, tokens=[*first.tokens, *completion.tokens], logprob=first.logprob + completion.logprob)
            yield by_id[completion.id], both


def _text(writer: CodeWriter, request: Request, completion: Completion) -> str:
    """The text of an answer with its marks, which some tokenizers count among the special tokens.

    It begins with the mark that opens the thinking where the chat template has written it at the end of the question.
    """
    ends = set(writer.tokenizer.end_ids)
    kept = list(completion.tokens)
    while kept and kept[-1] in ends:
        kept.pop()
    return opened_thinking(_decoded(writer, request.prompt[-_LAST_TOKENS:])) + _decoded(writer, kept)


def _decoded(writer: CodeWriter, tokens: Sequence[int]) -> str:
    text: str = writer.tokenizer.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def program_of(writer: CodeWriter, request: Request, completion: Completion) -> tuple[str, str]:
    """The program in an answer, and why there is none."""
    try:
        return extract_program(_text(writer, request, completion)), ""
    except ProgramError as error:
        return "", error.message
