"""The samples of a mixture, by number: what is asked about and shown, task augmentation, and what fits."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import grids
from test_prompt_tokenizer import QWEN, _bpe
from trainings import PROMPT, grid, numbered_tasks, proposals

from arc_submit.arc.grid import Grid, frozen, grid_id
from arc_submit.arc.packed_tasks import open_packed, pack_tasks
from arc_submit.arc.task import Pair
from arc_submit.arc.training_sets import TrainingTask, with_wrong_predictions
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.errors import ConfigError, DataError
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.train.augment import random_change, random_task_change
from arc_submit.train.dataloader import stream_steps
from arc_submit.train.decontamination import BenchmarkIndex
from arc_submit.train.mixture import (
    Mixture,
    MixturePart,
    PartSampler,
    TokenSample,
    check_fit,
    parse_part,
    prepare_part,
    read_mixture,
)

TOKENIZER = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version(PROMPT))


def sampler(
    tasks: list[TrainingTask], tokenizer: PromptTokenizer = TOKENIZER, max_seq_len: int = 400, loss_on: str = "answer", **part: Any
) -> PartSampler:
    settings = MixturePart("data", tokenizer.prompt.name, **part)
    return PartSampler(settings, pack_tasks(tasks), tokenizer, max_seq_len, loss_on, 5)


def answer_grid(sample: TokenSample) -> Grid:
    return TOKENIZER.decode(sample.ids[sample.answer :].tolist())


def test_every_pair_is_asked_about_once_in_an_epoch_test_pairs_included() -> None:
    """The fault that once cost weeks: pairs that are never asked about, with loss curves that look fine."""
    part = sampler(numbered_tasks(4, 5))
    for epoch in range(3):
        drawn = [part.draw(number) for number in range(epoch * 20, (epoch + 1) * 20)]
        assert sorted(answer_grid(sample).size for sample in drawn) == list(range(1, 21))
        assert sorted(sample.target for sample in drawn) == list(range(20))


def test_the_other_pairs_are_of_the_same_task_and_the_pair_asked_about_is_not_shown() -> None:
    part = sampler(numbered_tasks(4, 5), min_pairs=3, max_pairs=4)
    counts = set()
    for number in range(60):
        sample = part.draw(number)
        turns = TOKENIZER.tokenizer.decode(sample.ids[: sample.answer]).split("<|answer|>")[1:]
        sizes = {TOKENIZER.encoder.decode(turn.split("<|end|>")[0]).size for turn in turns if "<|end|>" in turn}
        assert len(sizes) == sample.shown
        counts.add(sample.shown)
        assert {(size - 1) // 5 for size in sizes} == {sample.target // 5}
        assert sample.target + 1 not in sizes
    assert counts == {2, 3}


def _mixture(seed: int = 1) -> Mixture:
    return Mixture([sampler(numbered_tasks(3, 4), weight=3.0), sampler(numbered_tasks(2, 3), weight=1.0, task_augmentation=0.5)], seed)


def _same(a: Any, b: Any) -> bool:
    return (a.number, a.part, a.target, a.answer) == (b.number, b.part, b.target, b.answer) and np.array_equal(a.ids, b.ids)


def test_however_many_share_the_work_each_sample_is_drawn_once_and_the_same() -> None:
    mixture = _mixture()
    alone = list(islice(stream_steps(mixture, 6, 0, 1, 0, 0), 5))
    assert [sample.number for step in alone for sample in step] == list(range(30))
    for world, loaders in ((1, 2), (3, 1)):
        ranks = [list(islice(stream_steps(_mixture(), 6, rank, world, 0, loaders), 5)) for rank in range(world)]
        for step, expected in enumerate(alone):
            together = sorted((sample for rank in ranks for sample in rank[step]), key=lambda sample: sample.number)
            assert len(together) == 6
            assert all(_same(a, b) for a, b in zip(together, expected, strict=True))
    later = list(islice(stream_steps(_mixture(), 6, 0, 1, 3, 2), 2))
    assert all(_same(a, b) for a, b in zip(chain(*later), chain(*alone[3:]), strict=True))
    assert not all(_same(a, b) for a, b in zip(chain(*alone), map(_mixture(2).sample, range(30)), strict=True))


def test_parts_come_in_proportion_and_each_counts_its_own() -> None:
    mixture = _mixture()
    parts = [mixture.part_of(number) for number in range(40_000)]  # over several chunks
    for part in (0, 1):
        numbers = [number for other, number in parts if other == part]
        assert numbers == list(range(len(numbers)))
    assert sum(part == 0 for part, _ in parts) / 40_000 == pytest.approx(0.75, abs=0.01)
    assert _mixture().part_of(39_999) == parts[-1]  # with nothing counted before


@settings(max_examples=60, deadline=None)
@given(grids(max_side=10), st.integers(0, 10_000))
def test_a_change_of_one_side_can_be_undone(cells: Grid, seed: int) -> None:
    change = random_change(np.random.default_rng(seed))
    changed = change.apply(cells)
    assert changed.shape == change.shape(*cells.shape)
    assert grid_id(change.undo(changed)) == grid_id(cells)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(grids(), grids()), min_size=2, max_size=4), st.integers(0, 10_000))
def test_task_augmentation_changes_one_side_alike_and_stays_within_bounds(sides: list[tuple[Grid, Grid]], seed: int) -> None:
    pairs = [Pair(*two) for two in sides]
    change = random_task_change(np.random.default_rng(seed), pairs)
    if change is None:
        return
    for pair, changed in ((pair, change.pair(pair)) for pair in pairs):
        mine, other = ("input", "output") if change.side == "input" else ("output", "input")
        assert grid_id(getattr(pair, other)) == grid_id(getattr(changed, other))
        undone = getattr(changed, mine)
        assert max(undone.shape) <= 30
        for step in reversed(change.steps):
            undone = step.undo(undone)
        assert grid_id(undone) == grid_id(getattr(pair, mine))


def test_task_augmentation_reaches_the_samples() -> None:
    part = sampler(numbered_tasks(1, 6), task_augmentation=1.0, views=False)
    plain = sampler(numbered_tasks(1, 6), views=False)
    changed = sum(answer_grid(part.draw(n)).shape != answer_grid(plain.draw(n)).shape for n in range(40))
    assert 8 < changed < 36


def test_the_share_that_does_not_fit_is_told() -> None:
    small = [TrainingTask("s", tuple(Pair(grid("12"), grid("21")) for _ in range(3)))]
    large = [TrainingTask("l", tuple(Pair(frozen(np.zeros((20, 20))), frozen(np.ones((20, 20)))) for _ in range(3)))]
    lost, line = check_fit(sampler(small + large, max_seq_len=400))
    assert 0.3 < lost < 0.7
    assert "WARNING" in line
    assert "50% of its pairs do not fit in 400 tokens" in line
    lost, line = check_fit(sampler(small, max_seq_len=400))
    assert lost == 0
    assert "WARNING" not in line
    with pytest.raises(DataError, match="none of its 3 pairs fits in 400 tokens with another pair shown; raise --max-seq-len"):
        sampler(large, max_seq_len=400).draw(0)


def test_tasks_of_many_tokens_are_left_out_where_a_part_says_so(tmp_path: Path) -> None:
    tasks = numbered_tasks(4, 5)  # outputs of 1 to 20 cells: the tasks grow
    # What is no cell (ends of rows and of grids) is counted too: the bound is the second task's own number of tokens.
    bound = sum(TOKENIZER.answer_length(g.shape) for pair in tasks[1].pairs for g in (pair.input, pair.output))  # type: ignore[arg-type]
    part = sampler(tasks, max_task_tokens=bound)
    for epoch in range(2):
        drawn = [part.draw(number) for number in range(epoch * 10, (epoch + 1) * 10)]
        assert sorted(sample.target for sample in drawn) == list(range(10))
    assert "2 of 4 tasks have more than max_task_tokens" in check_fit(part)[1]
    assert len(sampler(tasks, max_task_tokens=bound - 1).targets) == 5
    with pytest.raises(DataError, match="no task of at most max_task_tokens 3"):
        sampler(tasks, max_task_tokens=3)
    # Questions about proposals are asked once for each wrong output of the tasks that are left.
    small, large = proposals(tmp_path)
    large = TrainingTask("t1", (*large.pairs[:2], Pair(frozen(np.full((9, 9), 3)), large.pairs[2].output), large.pairs[3]), (0, 1))
    judged = [*with_wrong_predictions([large, small], tmp_path, [])]
    tokenizer = PromptTokenizer(TOKENIZER.tokenizer, TOKENIZER.encoder, prompt_version("verify-output-from-turns-v0"))
    part = sampler(judged, tokenizer, wrong="w", max_task_tokens=90)
    assert part.targets.tolist() == [len(judged[0].wrong) + i for i in range(len(judged[1].wrong))]
    assert {part.draw(number).target for number in range(len(part.targets))} == set(part.targets.tolist())


def test_a_part_of_which_few_pairs_fit_is_drawn_from_without_end() -> None:
    """One draw in many once found nothing that fits and ended a training of days in its middle."""
    small = [TrainingTask(f"s{i}", tuple(Pair(grid("12"), grid("21")) for _ in range(2))) for i in range(2)]
    large = [TrainingTask(f"l{i}", tuple(Pair(frozen(np.zeros((30, 30))), frozen(np.ones((30, 30)))) for _ in range(2))) for i in range(98)]
    part = sampler([*large, *small], max_seq_len=400)
    assert part.fitting.tolist() == [196, 197, 198, 199]
    for epoch in range(3):
        drawn = [part.draw(epoch * 200 + number) for number in range(200)]
        assert {sample.target for sample in drawn} == {196, 197, 198, 199}
        assert sorted(sample.target for sample in drawn if not sample.substituted) == [196, 197, 198, 199]


@pytest.mark.parametrize("kind", ["output", "inputs"])
def test_pairs_that_fit_beside_a_small_one_are_asked_about_in_their_turn(kind: str) -> None:
    """Among pairs too large to be shown: each of the two small ones is shown for the other's sake."""
    rng = np.random.default_rng(0)

    def square(side: int) -> Grid:
        return frozen(rng.integers(0, 10, (side, side)))

    sides = (30, 3, 28, 29, 3, 27, 30, 28)
    tasks = [TrainingTask(f"t{i}", tuple(Pair(square(side), square(side)) for side in sides)) for i in range(20)]
    tokenizer = (
        TOKENIZER if kind == "output" else PromptTokenizer(TOKENIZER.tokenizer, TOKENIZER.encoder, prompt_version("input-from-turns-v0"))
    )
    part = sampler(tasks, tokenizer, max_seq_len=400, task_augmentation=0.5)
    assert part.fitting.tolist() == [8 * task + place for task in range(20) for place in (1, 4)]
    drawn = [part.draw(number) for number in range(len(part.targets))]
    assert sorted(sample.target for sample in drawn if not sample.substituted) == part.fitting.tolist()


def test_a_view_that_makes_a_pair_too_long_does_not_take_its_turn() -> None:
    """A grid on its side has more rows, each with an end: what fits lying down alone is asked about lying down."""
    tasks = [
        TrainingTask(f"t{i}", tuple(Pair(frozen(np.full((2, 30), i)), frozen(np.full((2, 30), i))) for _ in range(2))) for i in range(9)
    ]
    lying = sampler(tasks, max_seq_len=2000, views=False)
    longest = max(len(lying.draw(number).ids) for number in range(18))
    part = sampler(tasks, max_seq_len=longest)
    drawn = [part.draw(number) for number in range(18 * 3)]
    assert not any(sample.substituted for sample in drawn)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,output-from-turns-v0,inf", "weight inf"),
        ("x,output-from-turns-v0,nan", "weight nan"),
        ("x,output-from-turns-v0,max_examples=-1", "max_examples -1"),
        ("x,output-from-turns-v0,max_examples=1", "max_examples 1"),
        ("x,output-from-turns-v0,max_tokens=-5", "max_tokens -5"),
        ("x,output-from-turns-v0,2,weight=3", "each once"),
    ],
)
def test_a_part_that_says_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_part(text)


@pytest.mark.parametrize("entry", [{"min_pairs": 3.9}, {"weight": True}, {"wrong": None}, {"views": 1.5}, {"max_examples": [2]}])
def test_a_mixture_file_that_says_what_cannot_be_meant_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    (tmp_path / "mixture.json").write_text(json.dumps([{"data": "x", "prompt": "output-from-turns-v0", **entry}]))
    with pytest.raises(ConfigError, match=rf"\[0\]: {next(iter(entry))}=.* is no "):
        read_mixture(tmp_path / "mixture.json")


def test_pairs_are_left_out_to_fit() -> None:
    rng = np.random.default_rng(0)
    tasks = [TrainingTask("t", tuple(Pair(*(frozen(rng.integers(0, 10, (6, 6))) for _ in "io")) for _ in range(7)))]
    part = sampler(tasks, max_seq_len=300, min_pairs=6, max_pairs=7)
    for number in range(20):
        sample = part.draw(number)
        assert len(sample.ids) == len(sample.loss_mask) <= 300
        assert sample.shown == 2
        assert not sample.substituted


@pytest.mark.parametrize("loss_on", ["answer", "outputs", "all"])
def test_the_loss_mask_follows_loss_on(loss_on: str) -> None:
    part = sampler(numbered_tasks(3, 6), loss_on=loss_on)
    for number in range(30):
        sample = part.draw(number)
        ids = sample.ids
        text = TOKENIZER.tokenizer.decode(ids[sample.loss_mask])
        outputs = [piece.split("<|end|>")[0] + "<|end|>" for piece in TOKENIZER.tokenizer.decode(ids).split("<|answer|>")[1:]]
        wanted = {"answer": outputs[-1], "outputs": "".join(outputs[1:]), "all": TOKENIZER.tokenizer.decode(ids[1:])}
        assert text == wanted[loss_on]
        assert sample.loss_mask[sample.answer :].all()


@pytest.mark.parametrize(
    ("prompt", "answers"), [("select-output-from-examples-v0", ("1", "2")), ("verify-output-from-examples-v0", ("yes", "no"))]
)
def test_questions_about_proposals_have_the_right_answer(tmp_path: Path, prompt: str, answers: tuple[str, str]) -> None:
    tokenizer = PromptTokenizer(_bpe(QWEN), make_encoder("MinimalGridEncoder()"), prompt_version(prompt))
    tasks = list(with_wrong_predictions(proposals(tmp_path), tmp_path, []))
    part = sampler(tasks, tokenizer, 4000, wrong=str(tmp_path), views=False)
    assert len(part.targets) == 4
    answered = set()
    for number in range(24):
        sample = part.draw(number)
        ids, start = sample.ids, sample.answer
        answered.add(tokenizer.tokenizer.decode(ids[start:-1]))
        cells = tokenizer.tokenizer.decode(ids[:start]).split("# Proposal")[1].partition("\n\n")[2].partition("\n\n")[0]
        assert set(cells) - {"\n"} == {"1" if tokenizer.tokenizer.decode(ids[start:-1]) == answers[0] else "2"}
    assert answered == set(answers)


@pytest.mark.parametrize("prompt", [f"{question}-output-from-turns-v{n}" for question in ("select", "verify") for n in (0, 1)])
def test_questions_about_proposals_without_words(tmp_path: Path, prompt: str) -> None:
    """For the pocket model: the proposals stand behind the test input (v0), or each where an answer would (v1)."""
    version = prompt_version(prompt)
    tokenizer = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), version)
    part = sampler(list(with_wrong_predictions(proposals(tmp_path), tmp_path, [])), tokenizer, 1000, wrong=str(tmp_path), views=False)
    answered = set()
    for number in range(24):
        sample = part.draw(number)
        ids, start = sample.ids, sample.answer
        answer = tokenizer.tokenizer.decode(ids[start:-1])
        answered.add(answer)
        text = tokenizer.tokenizer.decode(ids[:start])
        if prompt.endswith("v1"):  # ... test <answer> proposal <end> [<answer> proposal <end>] <answer>
            pieces = text.split("<|answer|>")
            assert pieces[-1] == ""
            first = pieces[-2 if version.kind == "verify" else -3].removeprefix("BB").removesuffix("<|end|>")
        else:
            first = text.split("<|end|>")[-1].partition("BB")[2][:6]
        assert first == ("A11B11" if answer == version.answers[0] else "A22B22")
    assert answered == set(version.answers)


def test_questions_about_inputs_show_inputs_alone(tmp_path: Path) -> None:
    tokenizer = PromptTokenizer(_bpe(QWEN), make_encoder("MinimalGridEncoder()"), prompt_version("input-from-inputs-v0"))
    tasks = [TrainingTask("t", tuple(Pair(frozen(np.full((2, n), 3)), frozen(np.full((2, 2), 7))) for n in range(1, 6)))]
    part = sampler(tasks, tokenizer, 4000, views=False)
    answers = set()
    for number in range(5):
        sample = part.draw(number)
        ids, start = sample.ids, sample.answer
        assert "77" not in tokenizer.tokenizer.decode(ids)
        answers.add(tokenizer.decode(ids[start:].tolist()).shape[1])
    assert answers == set(range(1, 6))


def test_questions_about_inputs_without_words() -> None:
    """For the pocket model: inputs one after the other; the first, which nothing determines, is not in the loss."""
    tokenizer = PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("input-from-turns-v0"))
    tasks = [TrainingTask("t", tuple(Pair(frozen(np.full((2, n), 3)), frozen(np.full((2, 2), 7))) for n in range(1, 6)))]
    part = sampler(tasks, tokenizer, views=False, min_pairs=4, max_pairs=4, loss_on="outputs")
    answers = set()
    for number in range(5):
        sample = part.draw(number)
        ids, start = sample.ids, sample.answer
        before, _, answer = tokenizer.tokenizer.decode(ids).removeprefix("<|start|>").partition("<|answer|>")
        assert sample.shown == before.count("A3") == 3
        assert "7" not in before + answer
        answers.add(tokenizer.decode(ids[start:].tolist()).shape[1])
        first = 1 + 2 + 2 * (1 + "ABCDE".index(before[1]) + 1)  # start, shape, and two rows with their marks
        assert sample.loss_mask.tolist() == [False] * first + [True] * (len(ids) - first)
    assert answers == set(range(1, 6))


def test_filters_and_packing(tmp_path: Path) -> None:
    lines = [{"task": f"t{n}", "examples": ["1>2"] * n} for n in (1, 3, 9)] + [{"task": "wide", "examples": ["1" * 20 + ">2"] * 4}]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    part = MixturePart(str(tmp_path / "lines.jsonl"), PROMPT, min_examples=3, max_examples=5, max_grid_cells=10)
    notes = prepare_part(part, tmp_path / "packed", BenchmarkIndex(), False)
    packed = open_packed(tmp_path / "packed")
    assert packed.ids == ["t3", "t9"]
    assert [packed.task_of(pair) for pair in range(packed.pair_count)] == [0] * 3 + [1] * 5
    assert "2 tasks left out by the part's filters" in " ".join(notes)
    mixed = [{"task": "m", "examples": ["1>2", "11111>22222", "3>4"]}, {"task": "large", "examples": ["1>2", "11111>22222"]}]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in mixed))
    prepare_part(
        MixturePart(str(tmp_path / "mixed.jsonl"), PROMPT, max_pair_cells=9, max_grid_cells=4), tmp_path / "small", BenchmarkIndex(), False
    )
    packed = open_packed(tmp_path / "small")
    assert packed.ids == ["m"], "of the other one pair is left"
    assert [packed.pair(number).input.tolist() for number in range(packed.pair_count)] == [[[1]], [[3]]]
    with pytest.raises(DataError, match="no task to train on"):
        prepare_part(MixturePart(part.data, PROMPT, min_examples=20), tmp_path / "none", BenchmarkIndex(), False)


def test_parts_as_text_and_as_json(tmp_path: Path) -> None:
    part = parse_part(f"a.json,{PROMPT},2,task_augmentation=0.3,views=false,max_pairs=5")
    assert part == MixturePart("a.json", PROMPT, 2.0, max_pairs=5, task_augmentation=0.3, views=False)
    (tmp_path / "m.json").write_text(
        json.dumps([{"data": "a.json", "prompt": PROMPT, "weight": 2, "max_pairs": 5, "task_augmentation": 0.3, "views": False}])
    )
    assert read_mixture(tmp_path / "m.json") == [part]
    for text, says in (
        ("a.json", "DATA,PROMPT"),
        (f"a.json,{PROMPT},two", "no float"),
        (f"a.json,{PROMPT},colour=1", "colour is unknown"),
        (f"a.json,{PROMPT},0", "above 0"),
        ("a.json,output-v9", "no prompt version"),
        ("a.json,select-output-from-examples-v0", "needs wrong=FOLDER"),
        (f"a.json,{PROMPT},wrong=b", "leave wrong out"),
        (f"a.json,{PROMPT},max_pairs=1", "min_pairs"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse_part(text)
