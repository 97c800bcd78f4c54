"""The writer of the program search: samples, features, network, proposals and learning at test time."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from arc_submit.arc.grid import frozen
from arc_submit.arc.prediction import read_predictions
from arc_submit.arc.task import Pair, Task
from arc_submit.errors import DataError
from arc_submit.options import identity_values
from arc_submit.programs.arc import writer
from arc_submit.programs.arc.features import STEP_FEATURES, features_of, task_features_count
from arc_submit.programs.arc.hindsight import learn_on_task
from arc_submit.programs.arc.network import load_network, logits, loss_and_gradient, new_network, save_network
from arc_submit.programs.arc.samples import draw_samples, labels_of
from arc_submit.programs.arc.writer import HIDDEN, SearchWriter, proposed_costs
from arc_submit.run import source_search
from arc_submit.run.presets import make_config
from arc_submit.run.source import SourceSetup
from arc_submit.run.source_search import resolve_search
from arc_submit.search.operations import OPERATIONS, TABLE
from arc_submit.search.programs import Effort
from arc_submit.search.search_worker import Searches, search_into_file
from arc_submit.search.task_search import EFFORTS
from arc_submit.storage.run_dir import RunPaths
from arc_submit.train.new_writer import frequencies, make_set, train_network

NUMBER = {operation.name: k for k, operation in enumerate(OPERATIONS)}


def pairs_of(rule, count=3, shape=(4, 5)):
    rng = np.random.default_rng(0)
    grids = [frozen(rng.integers(0, 4, shape)) for _ in range(count)]
    return tuple(Pair(grid, frozen(rule(grid))) for grid in grids)


def small_network(hidden=8):
    return new_network(task_features_count(), len(OPERATIONS), STEP_FEATURES, hidden, 0)


def test_one_step_of_an_operation_shows_what_it_gives():
    pairs = pairs_of(lambda g: np.where(g == 2, 2, 0)[:, ::-1])
    whole, steps = features_of(pairs)
    assert whole.shape == (task_features_count(),)
    size, exact, share, nothing_wrong, unchanged, output_size, output_fixed = steps[NUMBER["mirror_left_right"]]
    assert (size, exact, nothing_wrong, unchanged, output_size, output_fixed) == (1, 0, 0, 0, 1, 0)
    assert 0.25 < share < 1
    # keep(2) leaves outputs as they are, which have no other colour; nothing keeps the size and changes nothing of the inputs.
    assert steps[NUMBER["keep(2)"], 6] == pytest.approx(1)
    assert features_of(pairs_of(lambda g: g[::-1]))[1][NUMBER["mirror_up_down"], 1] == pytest.approx(1)


def test_samples_are_programs_with_what_they_give_and_repeat_with_the_seed():
    tasks = [pairs_of(lambda g: g[::-1], 4), pairs_of(lambda g: g.T, 4, (3, 6))]
    drawn = [list(islice(draw_samples(tasks, np.random.default_rng(5)), 12)) for _ in range(2)]
    assert [(s.programs, [p.output.tobytes() for p in s.pairs]) for s in drawn[0]] == [
        (s.programs, [p.output.tobytes() for p in s.pairs]) for s in drawn[1]
    ]
    inputs = {p.input.tobytes() for task in tasks for p in task}
    for sample in drawn[0]:
        assert {p.input.tobytes() for p in sample.pairs} <= inputs
        assert 1 <= len(sample.programs) <= 2
        assert len({p.output.tobytes() for p in sample.pairs}) > 1
    single = next(s for s in drawn[0] if len(s.programs) == 1 and len(s.programs[0]) > 1)
    labels = labels_of(single.programs)
    assert set(np.flatnonzero(labels[0])) == set(single.programs[0])
    assert list(np.flatnonzero(labels[1])) == [single.programs[0][0]]


def test_no_samples_where_no_grid_is_small_or_no_program_makes_anything():
    large = pairs_of(lambda g: g, 3, (20, 20))
    assert list(draw_samples([large], np.random.default_rng(0))) == []
    with pytest.raises(DataError, match="programs make only 0 samples of the 1 tasks"):
        make_set([large], 2, 0)


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(1)
    weights = {k: rng.normal(0, 0.3, v.shape) for k, v in new_network(3, 4, 2, 5, 0).items()}
    tasks, steps = rng.normal(size=(6, 3)), rng.normal(size=(6, 4, 2))
    labels = (rng.random((6, 2, 4)) < 0.3).astype(float)
    _, gradient = loss_and_gradient(weights, tasks, steps, labels)
    for name, slope in gradient.items():
        place = tuple(int(rng.integers(n)) for n in slope.shape)
        losses = []
        for change in (1e-5, -1e-5):
            moved = {k: v.copy() for k, v in weights.items()}
            moved[name][place] += change
            losses.append(loss_and_gradient(moved, tasks, steps, labels)[0])
        assert slope[place] == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=1e-5), name


def test_training_beats_frequencies_and_is_repeatable():
    data = make_set([pairs_of(lambda g: g[::-1], 4), pairs_of(lambda g: g.T, 4, (5, 3))], 40, 3)
    first, second = (train_network(data, 8, 6, 5e-3, 0) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)

    def nats(out):
        return (np.logaddexp(0, out) - data.labels * out).sum(axis=(1, 2)).mean()

    assert nats(logits(first, data.tasks, data.steps)) < nats(frequencies(data.labels)[None]) - 1


def test_proposals_are_the_tables_costs_without_trust_and_follow_the_evidence_with_it():
    none = np.zeros(len(OPERATIONS))
    assert (proposed_costs(none, 1.0) == TABLE[:, 5]).all()
    evidence = none.copy()
    evidence[0], evidence[1], evidence[2] = 3.0, -3.0, -100.0
    assert (proposed_costs(evidence, 0.0) == TABLE[:, 5]).all()
    costs = proposed_costs(evidence, 0.5)
    assert costs[0] < TABLE[0, 5]
    assert TABLE[1, 5] < costs[1] < costs[2] <= 16
    assert costs.dtype == np.int64


def test_a_writer_learns_from_what_programs_make_of_the_tasks_own_inputs():
    task = Task("task", pairs_of(lambda g: g[::-1], 4), (frozen(np.ones((3, 3))),))
    untrained = SearchWriter(small_network())
    learned = learn_on_task(untrained, task, samples=16, steps=3)
    assert (untrained.weights["output_bias"] == 0).all()
    assert not (learned.weights["output_bias"] == 0).all()
    assert not (learned.evidence(task) == untrained.evidence(task)).all()
    large = Task("large", pairs_of(lambda g: g, 3, (20, 20)), (frozen(np.ones((3, 3))),))
    assert learn_on_task(untrained, large) is untrained


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match=r"no such file; train it with"):
        load_network(path, small_network())
    save_network(small_network(4), path)
    with pytest.raises(DataError, match="was trained for other operations"):
        load_network(path, small_network(8))
    assert load_network(path, small_network(4)).keys() == small_network(4).keys()
    path.write_bytes(b"none")
    with pytest.raises(DataError, match="no safetensors file"):
        load_network(path, small_network(4))


def test_predictions_of_a_search_with_proposals_say_how_many_train_pairs_their_program_reproduces(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, "quick", Effort(work=200_000, size_work=50_000, pieces=500))
    task = Task("task", pairs_of(lambda g: g[::-1], 4), (frozen(np.arange(12).reshape(3, 4) % 4),))
    models = []
    for name, propose in (("plain", None), ("proposed", SearchWriter(small_network()))):
        search_into_file(task, tmp_path / name, 0, Searches("quick", propose))
        models.append([p.model for p in read_predictions(tmp_path / name)[0]])
    # An untrained network proposes the table's costs.
    assert [model.rpartition(" (")[0] for model in models[1]] == models[0]
    assert any(model.endswith("input | mirror_up_down (4 of 4 train pairs)") for model in models[1])


def test_a_run_asks_for_proposals_by_an_option_that_leaves_other_runs_as_they_are(tmp_path, monkeypatch):
    def source(**values):
        config = make_config(out=tmp_path, sources=("search",), **values)
        return identity_values(config), resolve_search(SourceSetup("search", "search", config, RunPaths(tmp_path)))[0].backends[0]

    plain, backend = source()
    assert "search_proposals" not in plain
    assert backend.entry == source_search.SEARCH_WORKER
    save_network(small_network(HIDDEN), tmp_path / "model.safetensors")
    monkeypatch.setattr(writer, "load_writer", lambda: load_network(tmp_path / "model.safetensors", small_network(HIDDEN)))
    proposed, backend = source(search_proposals="writer")
    assert proposed == plain | {"search_proposals": "writer"}
    assert backend.entry == source_search.PROPOSAL_WORKER
    monkeypatch.setattr(writer, "load_writer", lambda: load_network(tmp_path / "none", small_network(HIDDEN)))
    with pytest.raises(DataError, match="no such file"):
        source(search_proposals="writer")
