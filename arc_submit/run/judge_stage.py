"""The last stage of a run: a judge's answers about the sources' candidates, and what of the submission they decide.

What has been asked is on disk and is not asked again. An output that is not judged is ranked by the method without a judge, and the log
and the timeline say why. Does not know how a model judges.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.ensemble.combination import CombinedRanking, combine_sources, rank_all
from arc_submit.ensemble.judge_plan import find_contests, is_settled, plan_jobs
from arc_submit.ensemble.judgements import QUESTIONS, judgement_scores, read_judgements
from arc_submit.run.orchestrator import SourceProgress, Step, run_sources
from arc_submit.run.progress import Progress
from arc_submit.run.resolve import ResolvedRun
from arc_submit.run.source import JUDGE, MODEL_LANE, task_cost
from arc_submit.scheduling.scheduler import Level
from arc_submit.storage.run_dir import RunDirectory, RunPaths


def judged_scores(resolved: ResolvedRun, paths: RunPaths, task_ids: Sequence[str]) -> dict[OutputKey, dict[bytes, float]] | None:
    """The scores of candidates by the judgements on disk; None where the run's method needs none."""
    question = QUESTIONS.get(resolved.ensemble.method)
    return None if question is None else judgement_scores(read_judgements(paths, task_ids), question)


def decide(resolved: ResolvedRun, paths: RunPaths, predictions: Sequence[Prediction], task_ids: Sequence[str]) -> CombinedRanking:
    """The ranking of all sources' answers by the run's method."""
    ranked = rank_all(predictions, resolved.data.tasks)
    return combine_sources(ranked, resolved.ensemble, judged_scores(resolved, paths, task_ids))


def load_judging(resolved: ResolvedRun, directory: RunDirectory) -> SourceProgress | None:
    """What the judge of a run has to do, the least settled outputs first; None where the run has no judge."""
    judge, tasks = resolved.judge, resolved.data.tasks
    if judge is None:
        return None
    predictions, _ = directory.read_predictions(resolved.data.counts, [task_id for task_id in resolved.data.chosen if task_id in tasks])
    contests = find_contests(combine_sources(rank_all(predictions, tasks), resolved.ensemble.pure), judge.candidates, judge.settled)
    contested = list(dict.fromkeys(contest.output[0] for contest in contests))
    jobs = plan_jobs(contests, tasks, judge.settings, {task_id: read_judgements(directory, [task_id]) for task_id in contested})
    costs = {task_id: task_cost(tasks[task_id]) for task_id in contested}
    level = Level(0, judge.settings.predict.views)
    reached = dict.fromkeys(set(contested) - {task_id for job in jobs for task_id in job.task_ids}, level)
    return SourceProgress(judge.source, costs, {}, reached, judge.source.scale.costs, jobs=jobs)


def run_judge(
    resolved: ResolvedRun, judging: SourceProgress, directory: RunDirectory, deadline: float, progress: Progress
) -> Iterator[Step]:
    """Let the judge work until the deadline; yields each step, after each of which the judgements of a done job are on disk."""
    if resolved.judge is not None and judging.jobs and time.monotonic() < deadline:
        host = replace(resolved.host, devices=resolved.judge.devices, lanes={MODEL_LANE: resolved.judge.devices})
        yield from run_sources(replace(resolved, host=host), [judging], directory, deadline, progress)


def note_judged(resolved: ResolvedRun, judging: SourceProgress | None, ranking: CombinedRanking, directory: RunDirectory) -> str:
    """Note in the timeline which outputs the judge has decided, and why not the others; returns the same in words.

    Args:
        judging: None where the judge could not begin.
        ranking: of the whole run.
    """
    several = [output for output, answers in ranking.answers.items() if len(answers) > 1]
    outputs: dict[str, list[OutputKey]] = defaultdict(list)
    for output in sorted(ranking.unjudged):
        settled = 1.0 if resolved.judge is None else resolved.judge.settled
        sure = f"the sources give an answer a probability above {settled:g}" if is_settled(ranking.answers[output], settled) else ""
        outputs[sure or _why(resolved, judging, output[0])].append(output)
    method, fallback = resolved.ensemble.method, resolved.ensemble.fallback
    text = f"{method}: {len(several) - len(ranking.unjudged)} of {len(several)} outputs with several answers judged"
    if outputs:
        reasons = "; ".join(f"{len(found)}: {reason}" for reason, found in outputs.items())
        text = f"{text}, {len(ranking.unjudged)} ranked by {fallback} ({reasons})"
    fields: dict[str, Any] = {"method": method, "fallback": fallback, "outputs": len(several)}
    unjudged: list[Mapping[str, Any]] = [{"reason": reason, "outputs": found} for reason, found in outputs.items()]
    directory.event("judged", **fields, judged=len(several) - len(ranking.unjudged), unjudged=unjudged, reason=text)
    return text


def _why(resolved: ResolvedRun, judging: SourceProgress | None, task_id: str) -> str:
    """Why an output of a task is not judged."""
    if judging is None:
        return resolved.lost.get(JUDGE, "there is no judge")
    if task_id in judging.failed:
        return judging.failed[task_id]
    result = judging.results.get(task_id)
    if result is not None and result.refused:
        return result.refused[0]
    return "no time was left"
