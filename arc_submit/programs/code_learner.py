"""The learner of the rounds (arc_submit.programs.rounds) for a language model that writes programs: a LoRA of the task, fine-tuned by the
loop of arc_submit.finetune.

A sample is the question that a program is asked with, for the relabelled task in the frame of its view, and the program as its answer.
Does not know rounds, engines or a run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from arc_submit.arc.task import Task
from arc_submit.base_model.loading import choose_device
from arc_submit.base_model.lora import Adapter, save_adapter
from arc_submit.base_model.memory import Card, TrainingPlan
from arc_submit.errors import DataError
from arc_submit.finetune.samples import Sample, TaskSampler
from arc_submit.finetune.settings import FinetuneSettings, TTFTSettings
from arc_submit.finetune.trainer import FinetuneError, FinetuneResult, Hooks, JointSamples, configured_plan, finetune_task, with_limit
from arc_submit.finetune.ttft_worker import attach_adapter, load_base, with_same_weights
from arc_submit.inference.memory_limits import find_memory_limits
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import PromptVersion
from arc_submit.programs.code_prompt import QuestionTooLongError, program_sample
from arc_submit.programs.code_settings import CodeSettings
from arc_submit.programs.relabel import RelabelledTask

ADAPTER, VALUES = "adapter", "values.safetensors"
_WARMUP = 0.1  # of the steps; a constant rate follows


@dataclass(frozen=True)
class CodeTrainer:
    """What all tasks of a worker share.

    Attributes:
        adapter: in the model that is trained.
        sampler: with the tokenizer that writes the answers, and the settings but for the number of steps.
        prompt: the question.
        card: where the memory plan is known: a GPU, with the model on it.
    """

    adapter: Adapter
    sampler: TaskSampler
    prompt: PromptVersion
    card: Card | None = None


def open_trainer(settings: CodeSettings, prompt: PromptVersion) -> tuple[CodeTrainer, Any]:
    """The model that is trained with the adapter in it, and a second module tree over the same weights, without the adapter.

    Raises:
        ArcSubmitError: where the model, the adapter or the prompt configuration cannot work.
    """
    ttft = TTFTSettings(learning_rate=settings.code.learn_rate, schedule="constant", warmup_ratio=_WARMUP)
    finetune = FinetuneSettings(settings.predict, settings.lora, ttft, None, None, home=settings.home)
    device = choose_device(settings.predict.device)
    held = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0  # by an engine that was loaded before
    model, sampler, _ = load_base(finetune)
    twin = with_same_weights(model)  # before layers are attached
    adapter, _ = attach_adapter(model, finetune)
    config = settings.predict.prompt_config()
    tokenizer = PromptTokenizer.from_config(sampler.tokenizer.tokenizer, config, prompt)
    memory = find_memory_limits(settings.predict, device, tokenizer, settings.lora, True, held)
    return CodeTrainer(adapter, replace(sampler, tokenizer=tokenizer), prompt, memory.card if memory else None), twin


class CodeLearner:
    """A Learner for one task.

    Args:
        written: the text that the model wrote, by view and normal form of a program; an answer is learnt as it was written.
        on_pass: called after every forward and backward pass; may raise TimeIsUpError.

    Attributes:
        folder: of the adapter that the next programs are asked with; None before anything is learnt.
        learnt: programs learnt in this call of the worker.
        notes: what lack of memory has changed.
    """

    def __init__(self, trainer: CodeTrainer, task: Task, written: Mapping[tuple[str, str], str], on_pass: Callable[[], None]):
        self.trainer, self.task, self.written, self.on_pass = trainer, task, written, on_pass
        self.folder: Path | None = None
        self.learnt = 0
        self.notes: list[str] = []
        self._adapter = trainer.adapter

    def __call__(self, relabelled: Sequence[RelabelledTask], seed: int) -> float:
        """See Learner. One step for each relabelled task whose question fits with one pair.

        Raises:
            QuestionTooLongError: where none fits.
            FinetuneError: where the loss is not finite, or memory suffices for none.
        """
        sampler = replace(self.trainer.sampler, seed=self.trainer.sampler.seed + seed)
        fitting = self._fitting(dict(enumerate(relabelled)), sampler)
        result = self._finetune(fitting, sampler)
        self._go_on_from(self._adapter.flat.detach()[0])
        self.learnt += len(result.losses)
        self.notes += result.notes
        return sum(result.losses) / len(result.losses)

    def _fitting(self, relabelled: Mapping[int, RelabelledTask], sampler: TaskSampler) -> dict[int, RelabelledTask]:
        """Those whose samples fit, by their numbers.

        Raises:
            QuestionTooLongError: where none fits.
        """
        fitting, reason = {}, ""
        for number, one in relabelled.items():
            try:
                self._sample(one, sampler, number)
                fitting[number] = one
            except QuestionTooLongError as error:
                reason = str(error)
        if not fitting:
            raise QuestionTooLongError(reason)
        return fitting

    def _finetune(self, relabelled: Mapping[int, RelabelledTask], sampler: TaskSampler) -> FinetuneResult:
        """Fine-tune the adapter with a step for each relabelled task; begun anew without those that memory does not suffice for."""
        numbers, longest = list(relabelled), sampler.max_seq_len

        def draw(planned: TaskSampler, step: int) -> list[Sample]:
            nonlocal longest
            longest = planned.max_seq_len
            return [self._sample(relabelled[numbers[step]], planned, numbers[step])]

        name, settings = f"task {self.task.id}", replace(sampler.settings, steps=len(numbers))
        hooks, plan = Hooks(on_pass=self.on_pass), self._plan(relabelled, sampler)
        try:
            return finetune_task(self._adapter, replace(sampler, settings=settings), self.task, hooks, JointSamples(name, draw), plan)
        except QuestionTooLongError:
            shorter = replace(sampler, max_seq_len=longest)
        memory = f"{name}: memory suffices for learning from samples of at most {longest} tokens"
        try:
            fitting = self._fitting(relabelled, shorter)
        except QuestionTooLongError as error:
            raise FinetuneError(f"{memory}, which is too few: {error}") from None
        self.notes.append(f"{memory}; {len(numbers) - len(fitting)} of {len(numbers)} programs are left out")
        return self._finetune(fitting, shorter)

    def _plan(self, relabelled: Mapping[int, RelabelledTask], sampler: TaskSampler) -> TrainingPlan | None:
        """How the memory plan computes the steps; None where there is none."""
        if self.trainer.card is None:
            return None
        configured = configured_plan(sampler)
        longest = max(len(self._sample(one, sampler, number).ids) for number, one in relabelled.items())
        plan = self.trainer.card.plan_training(longest, configured.rows, configured.checkpointing)
        print(f"task {self.task.id}: learning from programs, samples of at most {longest} tokens: {plan.reason}", flush=True)
        return with_limit(plan, sampler)

    def _sample(self, one: RelabelledTask, sampler: TaskSampler, number: int) -> Sample:
        """A relabelled task's sample: a function of the sampler's seed and limit, and of its number."""
        program = one.ran.program
        rng = np.random.default_rng([sampler.seed, zlib.crc32(self.task.id.encode()), number])
        text = self.written.get((program.view, program.text), program.text)
        ids, start = program_sample(sampler.tokenizer, self.trainer.prompt, one.task, text, sampler.max_seq_len, rng)
        return Sample(ids, list(range(start, len(ids))))

    def _go_on_from(self, values: torch.Tensor) -> None:
        """Let the next round begin with these values of the adapter."""
        self._adapter = replace(self._adapter, initial=values.to("cpu", copy=True), continued=True)

    def save(self, folder: Path) -> None:
        """Write the adapter as engines read it, and its values as they are, which the next round goes on from."""
        save_adapter(self._adapter, folder / ADAPTER, self._adapter.model.dtype)
        save_file({"values": self._adapter.initial}, folder / VALUES)
        self.folder = folder / ADAPTER

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            DataError: where the file is missing or is of another adapter.
        """
        try:
            values = load_file(folder / VALUES)["values"]
        except (OSError, KeyError, SafetensorError) as error:
            raise DataError(f"{folder / VALUES}: cannot be read ({type(error).__name__}); delete the folder to begin anew") from None
        if values.shape != self._adapter.initial.shape:
            raise DataError(f"{folder / VALUES}: of another adapter; delete the folder to begin anew")
        self._go_on_from(values)
        self.folder = folder / ADAPTER
