"""The painter: its language, its normal form, its network without absolute positions, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_submit.arc.grid import frozen, same_grid
from arc_submit.cli import main as arc_submit
from arc_submit.errors import ConfigError, DataError
from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.painter.drawings import drawing_task, random_drawing, squares_picture
from arc_submit.programs.painter.language import PainterLanguage
from arc_submit.programs.painter.network import PainterNetwork, Size
from arc_submit.programs.painter.sampling import sample_drawings
from arc_submit.programs.painter.settings import PainterSettings
from arc_submit.programs.painter.shapes import HAS_COLUMN2, HAS_ROW2, KINDS, Shape, draw, normal_shapes, parse_drawing, print_drawing
from arc_submit.programs.painter.tokens import from_slots, make_batch
from arc_submit.programs.painter.training import load_network, mean_loss, save_network, train, training_batch
from arc_submit.programs.painter.writer import PainterLearner, PainterWriter
from arc_submit.programs.relabel import relabel, run_programs

TINY = Size(cell=8, slot=8, heads=2, blocks=1, layers=1)


@st.composite
def shapes(draw_value: st.DrawFn) -> Shape:
    row, column, row2, column2 = (draw_value(st.integers(0, 7)) for _ in range(4))
    kind = draw_value(st.sampled_from(KINDS))
    return Shape(
        row, column, kind, draw_value(st.integers(0, 3)), row2 if kind in HAS_ROW2 else row, column2 if kind in HAS_COLUMN2 else column
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(shapes(), max_size=7))
def test_the_normal_form_draws_the_same_and_every_line_of_it_counts(drawing: list[Shape]) -> None:
    assert parse_drawing(print_drawing(drawing)) == drawing
    normal = normal_shapes(drawing)
    assert same_grid(draw(normal, 8, 8), draw(drawing, 8, 8))
    assert normal_shapes(normal) == normal
    assert len(normal) <= len(drawing)
    for i in range(len(normal)):
        assert not same_grid(draw(normal[:i] + normal[i + 1 :], 8, 8), draw(normal, 8, 8))


def test_the_normal_form_does_not_depend_on_the_order_of_shapes_that_do_not_touch() -> None:
    text = "0 0 rect 3 1 1\n0 4 pixel 2\n6 1 hline 4 5\n6 1 pixel 5"
    assert PainterLanguage().normal_form("6 5 line 4 6 1\n0 4 box 2 0 4\n6 1 pixel 5\n1 1 rect 3 0 0\n") == text
    assert PainterLanguage().size(text) == 7 + 5 + 6 + 5


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("0 0 circle 1", Refusal.SYNTAX),
        ("0 0", Refusal.SYNTAX),
        ("0 0 rect 1 2", Refusal.SYNTAX),
        ("0 0 pixel x", Refusal.SYNTAX),
        ("0 30 pixel 1", Refusal.SYNTAX),
        ("-1 0 pixel 1", Refusal.SYNTAX),
        ("٣ 0 pixel 1", Refusal.SYNTAX),
        ("0 0 pixel 10", Refusal.VALUE),
        ("0 9 pixel 1", Refusal.VALUE),
        ("0 0 pixel 1\n" * 257, Refusal.STEPS),
        ("0 0 pixel 1 " * 9999, Refusal.STEPS),
    ],
)
def test_a_text_that_is_no_drawing_is_refused_in_one_line(text: str, refusal: Refusal) -> None:
    with pytest.raises(ProgramError) as caught:
        PainterLanguage().run(text, [frozen(np.zeros((5, 5)))])
    assert caught.value.refusal == refusal
    assert "\n" not in caught.value.message


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from(["0", "7", "29", "rect", "line", "box", "\n", "import"]), max_size=30).map(" ".join))
def test_any_text_is_a_drawing_or_is_refused(text: str) -> None:
    language = PainterLanguage()
    try:
        outputs = language.run(text, [frozen(np.zeros((30, 30)))])
        assert outputs[0].shape == (30, 30)
        assert same_grid(outputs[0], language.run(language.normal_form(text), [outputs[0]])[0])
    except ProgramError:
        pass


def test_pictures_of_squares_divide_the_grid() -> None:
    picture = squares_picture(49, 3)
    assert picture.shape == (30, 30)
    assert same_grid(picture, squares_picture(49, 3))
    assert not same_grid(picture, squares_picture(49, 4))
    edges = [i for i in range(1, 30) if (picture[i] != picture[i - 1]).any()]
    assert len(edges) == 6
    for wrong in (0, 24, -4, 31 * 31):
        with pytest.raises(ConfigError, match="square number"):
            squares_picture(wrong, 0)


def network(seed: int = 0, end: float = 3.0) -> PainterNetwork:
    torch.manual_seed(seed)
    made = PainterNetwork(TINY)
    with torch.no_grad():
        for one in made.parameters():
            one.add_(0.1 * torch.randn_like(one))
        made.end_out.bias += end  # so that drawings end, after different lengths
    return made.eval()


def test_a_sampled_drawing_has_the_probability_that_the_whole_network_gives_it() -> None:
    picture = squares_picture(9, 1, side=9)
    samples = sample_drawings(network(), [picture], 5, 1.0, seed=4, max_shapes=9)
    assert len({len(slots) for slots, _ in samples}) > 1
    again = sample_drawings(network(), [picture], 5, 1.0, seed=4, max_shapes=9)
    assert all((a == b).all() and x == y for (a, x), (b, y) in zip(samples, again, strict=True))
    each = sample_drawings(network(), [picture] * 5, 5, 1.0, seed=4, max_shapes=9)
    assert all((a == b).all() for (a, _), (b, _) in zip(samples, each, strict=True))
    for slots, logprob in samples:
        batch = make_batch([picture], [from_slots(slots)])
        assert from_slots(batch.slots[0]) == from_slots(slots)
        found = network().log_probabilities(*map(torch.from_numpy, (batch.pictures, batch.slots, batch.lengths)))
        if len(slots) == 9:  # cut: its end was not drawn
            found[:, -1] = 0
        assert float(found.detach().sum()) == pytest.approx(logprob, abs=1e-3)


def test_no_position_is_absolute_so_that_long_drawings_are_nothing_new() -> None:
    # Far behind the window, what a slot is foretold from does not depend on how many shapes came before.
    made = network()
    picture = torch.from_numpy(squares_picture(25, 0).astype(np.int64))[None]
    rng = np.random.default_rng(0)
    shapes = [random_drawing(rng, 30, 30, 1)[0] for _ in range(40)]
    long, short = (make_batch([picture[0].numpy()], [one]).slots for one in (shapes, shapes[-5:]))
    read = made.read(picture)
    with torch.no_grad():
        far, near = (made.hidden(read, torch.from_numpy(one))[:, -6:] for one in (long, short))
    assert torch.allclose(far, near, atol=1e-5)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from arc_submit.programs.painter import training

    monkeypatch.setattr(training, "PainterNetwork", lambda size=TINY: PainterNetwork(size))
    monkeypatch.setattr(training, "SAVED", 2)
    train(tmp_path / "whole", 4, 2, 1e-3, seed=5)

    def stop(seed: int, step: int, samples: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return training_batch(seed, step, samples)

    monkeypatch.setattr(training, "training_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", 4, 2, 1e-3, seed=5)
    monkeypatch.setattr(training, "training_batch", training_batch)
    train(tmp_path / "stopped", 4, 2, 1e-3, seed=5)
    whole, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    with pytest.raises(DataError, match="no painter"):
        load_network(tmp_path / "missing")


def test_learning_makes_what_was_drawn_more_probable_under_the_view_in_which_it_was_written(tmp_path: Path) -> None:
    made = network()
    task = drawing_task("a", squares_picture(4, 0, side=6))
    programs = PainterWriter(made, views=3).write(task, 7, 1.0, seed=1)
    assert len(programs) == 7
    assert len({one.view for one in programs}) == 3
    assert [one.view for one in programs].count("") == 3
    relabelled = relabel(task, run_programs(PainterLanguage(), task, programs), set())
    assert relabelled
    learner = PainterLearner(made, rate=1e-2, batch=2)
    losses = [learner(relabelled, seed=0) for _ in range(4)]
    assert losses[-1] < losses[0]
    learner.save(tmp_path)
    other = network(1)
    PainterLearner(other).load(tmp_path)
    assert PainterWriter(other).write(task, 2, 0.5, seed=3) == PainterWriter(made).write(task, 2, 0.5, seed=3)
    with pytest.raises(DataError, match="delete the folder"):
        PainterLearner(PainterNetwork(Size(8, 16, 2, 1, 1))).load(tmp_path)


def test_drawings_of_the_training_have_one_to_five_needed_shapes() -> None:
    batch = training_batch(0, 1, 20)
    assert batch.lengths.min() >= 1
    assert batch.lengths.max() <= 5
    for picture, slots, length in zip(batch.pictures, batch.slots, batch.lengths, strict=True):
        drawing = from_slots(slots[:length])
        assert (draw(drawing, *picture.shape) == picture).all()
        assert normal_shapes(drawing) == drawing
    assert np.isfinite(mean_loss(network(), batch).item())


def test_the_command_draws_records_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_network(network(end=8.0), tmp_path / "model")
    words = ["paint", "--squares", "4", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--samples", "3"]
    words += ["--cold-samples", "1", "--json"]
    assert arc_submit([*words, "--rounds", "1"]) == 0
    assert arc_submit([*words, "--rounds", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("round   0:") for line in printed) == 1
    assert sum(line.startswith("round   1:") for line in printed) == 1
    figures = json.loads(printed[-1])
    assert figures["rounds"] == 2
    assert figures == json.loads((tmp_path / "out" / "paint.json").read_text())
    assert all(Path(figures[name]).read_bytes().startswith(b"\x89PNG") for name in ("picture", "curve"))
    assert arc_submit([*words, "--no-learn"]) == 1
    assert "made with another learn" in capsys.readouterr().err
    assert arc_submit(["paint", "--squares", "5"]) == 1
    assert "square number" in capsys.readouterr().err


def test_the_painter_that_ships_draws_what_it_was_trained_on() -> None:
    from arc_submit.programs.painter.paint import painter_folder

    made = load_network(painter_folder())
    rng = np.random.default_rng(1_000_003)
    right = 0
    for seed in range(6):
        drawing = random_drawing(rng, 12, 12, 3)
        picture = frozen(draw(drawing, 12, 12))
        task = drawing_task("random", picture)
        programs = PainterWriter(made).write(task, 6, 0.5, seed)
        right += max(one.whole for one in run_programs(PainterLanguage(), task, programs))
    assert right >= 3


def test_settings_are_refused_by_flag() -> None:
    from arc_submit.options import check_options

    with pytest.raises(ConfigError, match="--views 0"):
        check_options(PainterSettings(views=0))
