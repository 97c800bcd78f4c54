"""Break each invariant of the design once, in a copy of the project, and see that a test goes red.

    python tests/break_invariants.py [NUMBER ...]

Every entry says what is broken, where, how, and which tests must notice. An entry whose tests stay green, or whose text is no longer in
the file, is a failure of this script. Knows nothing about why the code is as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Break:
    invariant: str
    how: str
    file: str
    old: str
    new: str
    tests: str


BREAKS = [
    Break(
        "1 always valid",
        "write the submission in place",
        "arc_submit/arc/files.py",
        "temporary.replace(path)",
        "path.write_text(temporary.read_text())",
        "tests/test_submission.py",
    ),
    Break(
        "1 always valid",
        "leave out the tasks that were not sampled",
        "arc_submit/run/pipeline.py",
        "submission = Submission(resolved.data.challenges, resolved.submission, resolved.data.counts)",
        "submission = Submission(resolved.data.challenges.subset(resolved.data.chosen), resolved.submission)",
        "tests/test_pipeline.py -k sample",
    ),
    Break(
        "1 always valid",
        "give the same attempt twice",
        "arc_submit/arc/submission.py",
        "if not any(same_grid(grid, other) for other in distinct):",
        "if True:",
        "tests/test_submission.py",
    ),
    Break(
        "2 nothing lost",
        "write predictions when the job ends",
        "arc_submit/inference/predict.py",
        "        append_predictions(RunPaths(Path(settings.run)).predictions(settings.source, task_id), own)\n",
        "        pass\n",
        "tests/test_predict.py tests/test_pipeline.py -k 'not made_again and (leaves or there)'",
    ),
    Break(
        "2 nothing lost",
        "begin every task again",
        "arc_submit/inference/predict.py",
        "and (one.test, one.view.key) not in answered",
        "",
        "tests/test_predict.py -k made_again",
    ),
    Break(
        "2 nothing lost",
        "let a cut line swallow the next one",
        "arc_submit/arc/files.py",
        'if size and os.pread(descriptor, 1, size - 1) != b"\\n":',
        "if False:",
        "tests/test_prediction.py tests/test_predict.py -k 'cut or made_again or append'",
    ),
    Break(
        "3 no wait without a deadline",
        "wait for silent workers for ever",
        "arc_submit/workers/supervisor.py",
        "if worker.job and now - worker.last_message > (limit := self.max_silence(worker_id)):",
        "if limit := 0:",
        "tests/test_pool.py -k 'hangonce' --timeout 20",
    ),
    Break(
        "3 no wait without a deadline",
        "leave out the limit that follows a worker's own pace",
        "arc_submit/workers/supervisor.py",
        "if timeouts.pause_factor is None or worker.heartbeats < _MIN_HEARTBEATS:",
        "if True:",
        "tests/test_fallback.py -k own_pace --timeout 60",
    ),
    Break(
        "4 one task's failure is its own",
        "give up a task of one engine without trying the next",
        "arc_submit/workers/fallback.py",
        'if event.kind == "given_up" and not last:',
        "if False:",
        "tests/test_fallback.py -k next",
    ),
    Break(
        "4 one task's failure is its own",
        "run base and adapter requests in one batch",
        "arc_submit/inference/vllm_engine.py",
        "if running and (waiting[0].adapter is None) != base_runs:",
        "if False:",
        "tests/test_vllm_engine.py -k nothing_behind",
    ),
    Break(
        "4 one task's failure is its own",
        "leave requests in the engine when a step raises",
        "arc_submit/inference/vllm_engine.py",
        "                self.core.abort_request(list(running))",
        "                pass",
        "tests/test_vllm_engine.py -k empty",
    ),
    Break(
        "3 no wait without a deadline",
        "ignore the deadline",
        "arc_submit/workers/supervisor.py",
        "if now < self.deadline and not self.quota.stopped:",
        "if True:",
        "tests/test_pool.py -k outlasts --timeout 20",
    ),
    Break(
        "3 no wait without a deadline",
        "kill the worker but not what it started",
        "arc_submit/workers/pool.py",
        "_signal_all(worker, signal.SIGKILL)",
        "worker.process.kill()",
        "tests/test_pool.py -k child --timeout 60",
    ),
    Break(
        "3 no wait without a deadline",
        "let workers outlive their parent",
        "arc_submit/workers/parent_death.py",
        "ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)",
        "pass",
        "tests/test_pool.py -k dies_with_its_parent --timeout 60",
    ),
    Break(
        "4 failure stays alone",
        "give up a whole job for one task",
        "arc_submit/workers/supervisor.py",
        "if len(job.task_ids) > 1:",
        "if False:",
        "tests/test_pool.py -k given_up_alone",
    ),
    Break(
        "4 failure stays alone",
        "let one unreadable task end the job",
        "arc_submit/inference/predict.py",
        "except ArcSubmitError as error:\n            result.failed,",
        "except KeyError as error:\n            result.failed,",
        "tests/test_predict.py -k fails_alone",
    ),
    Break(
        "4 failure stays alone",
        "take an adapter that one engine does not serve for a broken one",
        "arc_submit/inference/predict.py",
        "if result.not_served}",
        "if False}",
        "tests/test_predict.py -k only_another_engine",
    ),
    Break(
        "4 failure stays alone",
        "retry a task that a worker does not support",
        "arc_submit/workers/supervisor.py",
        'cannot = message["result"].pop("cannot", {})',
        'cannot = message["result"].pop("cannot", {}) and {}',
        "tests/test_fallback.py -k unsupported",
    ),
    Break(
        "candidates are compared under the same views",
        "weigh votes and scores together",
        "arc_submit/inference/predict.py",
        "if any((bool(p.logprobs or p.found) or not p.view) != scored for p in held):",
        "if False:",
        "tests/test_searched.py -k mixed",
    ),
    Break(
        "candidates are compared under the same views",
        "score a candidate under the first view alone",
        "arc_submit/inference/candidates.py",
        "scores = score_grids(engine, tokenizer, scoring, grids, on_view)",
        "scores = score_grids(engine, tokenizer, scoring[:1], grids, on_view)",
        "tests/test_searched.py -k every_candidate",
    ),
    Break(
        "4 one task's failure is its own",
        "throw a task's answers away where memory does not suffice under one view",
        "arc_submit/inference/predict.py",
        "if failures and not any(answers.values()):",
        "if failures:",
        "tests/test_searched.py -k without_memory",
    ),
    Break(
        "2 nothing lost",
        "forget the tokens of an answer that loses its slot",
        "arc_submit/inference/transformers_engine.py",
        "self._prefill(state.request, state.before(), slot, cache)",
        "self._prefill(state.request, (), slot, cache)",
        "tests/test_memory_of_decoding.py -k fails_once",
    ),
    Break(
        "5 same seed, same predictions",
        "let a search's share of a task's tokens follow the slots",
        "arc_submit/inference/candidates.py",
        "left // waiting)",
        "left // engine.slots)",
        "tests/test_searched.py -k whatever_the_slots",
    ),
    Break(
        "2 nothing lost",
        "search again what is there",
        "arc_submit/inference/predict.py",
        "one.test not in searched and ",
        "",
        "tests/test_searched.py -k not_computed_again",
    ),
    Break(
        "3 no wait without a deadline",
        "search on after the time",
        "arc_submit/inference/transformers_engine.py",
        "return deadline is not None and time.monotonic() >= deadline",
        "return False",
        "tests/test_searched.py -k deadline_preserves",
    ),
    Break(
        "3 no wait without a deadline",
        "fine-tune on after the time",
        "arc_submit/finetune/ttft_worker.py",
        "if deadline is not None and time.monotonic() >= deadline:",
        "if False:",
        "tests/test_ttft_source.py -k gives_up_at",
    ),
    Break(
        "5 same seed, same predictions",
        "draw views from the system's randomness",
        "arc_submit/arc/views.py",
        "rng = np.random.default_rng(seed)",
        "rng = np.random.default_rng()",
        "tests/test_predict.py tests/test_views.py",
    ),
    Break(
        "5 same seed, same predictions",
        "let the batch shape the attention's sums",
        "arc_submit/inference/slot_cache.py",
        "_BLOCK = 512",
        "_BLOCK = 1",
        "tests/test_transformers_engine.py -k beside",
    ),
    Break(
        "6 no remote code, no pickle",
        "load packed data with pickle",
        "arc_submit/arc/packed_tasks.py",
        'mmap_mode="r", allow_pickle=False',
        'mmap_mode="r", allow_pickle=True',
        "tests/test_safety.py",
    ),
    Break(
        "7 refused at once",
        "start workers before looking at the model",
        "arc_submit/run/resolve.py",
        "prompt = _check_model(group.config, groups.cards)",
        "prompt = None",
        "tests/test_pipeline.py -k before_any_work",
    ),
    Break(
        "7 refused at once",
        "run on random weights in place of those that a file lacks",
        "arc_submit/base_model/architecture.py",
        "    refuse_differences(folder, report)\n    return skeleton",
        "    return skeleton",
        "tests/test_architecture.py",
    ),
    Break(
        "7 refused at once",
        "let a layer with a window see everything while an answer is written",
        "arc_submit/base_model/attention.py",
        "if window and attention_mask",
        "if False and attention_mask",
        "tests/test_families.py -k Mistral",
    ),
    Break(
        "7 refused at once",
        "take a prompt over the limit",
        "arc_submit/language/truncation.py",
        "if length([*chosen, i]) <= limit:",
        "if True:",
        "tests/test_truncation.py",
    ),
    Break(
        "8 one clear line",
        "accept any integer as a colour",
        "arc_submit/arc/grid.py",
        "or not 0 <= cell < COLOURS",
        "",
        "tests/test_grid_task.py tests/test_malformed.py",
    ),
    Break(
        "views undo themselves",
        "undo the flip after the turn",
        "arc_submit/arc/views.py",
        "turned = np.rot90(grid[:, ::-1] if self.flip else grid, -self.quarter_turns)",
        "turned = np.rot90(grid, -self.quarter_turns)[:, :: -1 if self.flip else 1]",
        "tests/test_views.py",
    ),
    Break(
        "a text is a grid only if it is exactly one",
        "do not encode the grid again",
        "arc_submit/language/encoders.py",
        "if self._row_texts(grid) != rows or self.separator.join(rows) != body:",
        "if False:",
        "tests/test_encoders.py",
    ),
    Break(
        "a prompt is the same on every day",
        "let templates tell the time",
        "arc_submit/language/chat_template.py",
        "strftime_now=strftime_now,",
        "",
        "tests/test_chat_templates.py",
    ),
    Break(
        "there is room for a whole answer",
        "count the grid and one end mark",
        "arc_submit/language/prompt_tokenizer.py",
        "len(self.answer_ids(self.longest_grid(shape)))",
        "len(self._tokenize(self.encoder.encode(self.longest_grid(shape)))) + 1",
        "tests/test_chat_templates.py",
    ),
    Break(
        "reused tokens are the text's tokens",
        "do not try whether they are",
        "arc_submit/language/prompt_tokenizer.py",
        "if self.prompt_ids(turns) != self._tokenize(self.text(turns)) or self.answer_ids(grid) != answer:",
        "if False:",
        "tests/test_prompt_tokenizer.py",
    ),
    Break(
        "every pair is learnt",
        "leave out the test pairs",
        "arc_submit/arc/training_sets.py",
        "(*train, *tests.values())",
        "(*train,)",
        "tests/test_training_sets.py -k all_of_its_pairs",
    ),
    Break(
        "a run goes on with the model it began with",
        "tell weights by their size alone",
        "arc_submit/base_model/checks.py",
        'fingerprint = f"{size} bytes, {hasher.hexdigest()[:16]}"',
        'fingerprint = f"{size} bytes"',
        "tests/test_pipeline.py -k trained_anew",
    ),
    Break(
        "3 no wait without a deadline",
        "let a source that hangs hold the run",
        "arc_submit/workers/merge_streams.py",
        "ready.get(timeout=max(0.0, deadline - time.monotonic()))",
        "ready.get()",
        "tests/test_merge_streams.py --timeout 20",
    ),
    Break(
        "2 nothing lost",
        "fine-tune again where the adapter is there",
        "arc_submit/finetune/ttft_worker.py",
        "if not (folder / CONFIG).exists():",
        "if True:",
        "tests/test_ttft_source.py -k 'there_is_used'",
    ),
    Break(
        "4 one task's failure is its own",
        "let a joint warm-up that failed take all fine-tuning with it",
        "arc_submit/finetune/ttft_worker.py",
        "and not (warmup_adapter / CONFIG).exists():",
        "and False:",
        "tests/test_ttft_source.py -k warm_up_that_fails -m campaign",
    ),
    Break(
        "5 same seed, same predictions",
        "begin a task's fine-tuning from what the task before it has left",
        "arc_submit/finetune/trainer.py",
        "    reset(adapter, task_seed(sampler.seed, task))\n",
        "",
        "tests/test_ttft.py -k ten_tasks",
    ),
    Break(
        "3 no wait without a deadline",
        "show life only after a whole step of many passes",
        "arc_submit/finetune/trainer.py",
        "by_token * batch.weights)\n        training.hooks.on_pass()\n",
        "by_token * batch.weights)\n",
        "tests/test_ttft.py -k every_pass_of_a_step",
    ),
    Break(
        "5 same seed, same predictions",
        "count the gradient of a pass that ran out of memory",
        "arc_submit/finetune/trainer.py",
        "        _clear_failed_pass(adapter)\n",
        "",
        "tests/test_repeated_steps.py -k with_checkpointing",
    ),
    Break(
        "4 one task's failure is its own",
        "give a task up for one view under which nothing fits",
        "arc_submit/finetune/samples.py",
        "_VIEW_TRIES = 16",
        "_VIEW_TRIES = 1",
        "tests/test_ttft.py -k lying_down",
    ),
    Break(
        "2 nothing lost",
        "let a lost fine-tuning's losses stay in front of the next one's",
        "arc_submit/finetune/ttft_worker.py",
        "    path.unlink(missing_ok=True)\n",
        "",
        "tests/test_ttft_source.py -k killed_and_one_frozen -m campaign",
    ),
    Break(
        "5 same seed, same predictions",
        "leave an adapter on the base",
        "arc_submit/base_model/adapter_files.py",
        "            hook.remove()",
        "            pass",
        "tests/test_adapters.py",
    ),
    Break(
        "an adapter is served as PEFT does",
        "forget alphas by module",
        "arc_submit/base_model/adapter_files.py",
        '{str(key): float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()}',
        "{}",
        "tests/test_adapters.py -k patterns",
    ),
    Break(
        "an adapter is served as PEFT does",
        "forget DoRA's lengths",
        "arc_submit/base_model/adapter_files.py",
        "if low_rank.row_scale is None:",
        "if True:",
        "tests/test_adapters.py -k dora",
    ),
    Break(
        "the base is shared and untouched",
        "load the base twice",
        "arc_submit/finetune/ttft_worker.py",
        "twin = copy.deepcopy(model, shared)",
        "twin = copy.deepcopy(model)",
        "tests/test_ttft_source.py -k untouched_by_training",
    ),
    Break(
        "the hours are spent to the end and never past it",
        "begin what would end too late",
        "arc_submit/scheduling/scheduler.py",
        "if self.costs.upper_bound(seconds) <= left:",
        "if True:",
        "tests/test_scheduler.py -k too_late",
    ),
    Break(
        "the hours are spent to the end and never past it",
        "buy nothing with the time left over",
        "arc_submit/scheduling/scheduler.py",
        "or self._choose_climber(left, capacity)",
        "or None",
        "tests/test_scheduler.py",
    ),
    Break(
        "work is given up in the order of least loss",
        "give everybody the plan while it lasts",
        "arc_submit/scheduling/scheduler.py",
        "            if fits:\n                break",
        "            break",
        "tests/test_scheduler.py -k 'starves or least_loss'",
    ),
    Break(
        "work is given up in the order of least loss",
        "let the certain tasks climb first",
        "arc_submit/scheduling/scheduler.py",
        "self._failures.get(task_id, 0), -uncertainty,",
        "self._failures.get(task_id, 0), uncertainty,",
        "tests/test_scheduler.py -k most_uncertain",
    ),
    Break(
        "5 same seed, same predictions",
        "take a longer fine-tuning's adapter for the plan's",
        "arc_submit/finetune/settings.py",
        'subfolder = "" if steps == self.ttft.steps else f"steps-{steps}"',
        'subfolder = ""',
        "tests/test_pipeline.py -k buys_the_same",
    ),
    Break(
        "the simulation decides as the pool does",
        "let a simulated worker that falls silent be noticed at once",
        "arc_submit/scheduling/simulation.py",
        'self._set_timer(supervisor.max_silence(worker_id) + 1e-3, worker_id, now, "check")',
        'self._set_timer(0.0, worker_id, now, "crash")',
        "tests/test_simulation.py -k decides_as",
    ),
    Break(
        "a machine is used to the end",
        "retire a GPU that did not start for good",
        "arc_submit/workers/supervisor.py",
        "self._retired_until[worker_id] = now + delay",
        "self._retired[number] = now + 1e9",
        "tests/test_pool.py -k after_a_delay",
    ),
    Break(
        "answers within minutes",
        "fine-tune before the frozen model answers",
        "arc_submit/run/source_table.py",
        '    "frozen": SourceEntry(resolve_frozen, uses_model=True),\n    "code": SourceEntry(resolve_code, uses_model=True),\n'
        '    "ttft": SourceEntry(resolve_ttft, uses_model=True),\n',
        '    "ttft": SourceEntry(resolve_ttft, uses_model=True),\n    "code": SourceEntry(resolve_code, uses_model=True),\n'
        '    "frozen": SourceEntry(resolve_frozen, uses_model=True),\n',
        "tests/test_sources.py -k first",
    ),
    Break(
        "a machine is divided",
        "let sources on one device work side by side",
        "arc_submit/run/named_sources.py",
        "shared = [lane for lane in lanes if lane[1] & set(own)]",
        "shared = [lane for lane in lanes if lane[1] == set(own)]",
        "tests/test_named_sources.py -k take_turns",
    ),
    Break(
        "5 same seed, same predictions",
        "go on with a source that is defined otherwise",
        "arc_submit/run/fingerprint.py",
        'of_source = {"kind": definition.kind} | identity_values(own, kind=definition.kind)',
        'of_source = {"kind": definition.kind}',
        "tests/test_named_sources.py -k identity",
    ),
    Break(
        "4 one task's failure is its own",
        "lose all sources with one whose model is missing",
        "arc_submit/run/resolve.py",
        "prompt, lost = None, lost | dict.fromkeys(asking, str(error))",
        "prompt, lost = None, lost | dict.fromkeys((n for n in config.sources if uses_model([config.kind_of(n)])), str(error))",
        "tests/test_named_sources.py -k leaves_the_others",
    ),
    Break(
        "a machine is divided",
        "give both lanes all workers",
        "arc_submit/run/host.py",
        "else host.workers // 2\n",
        "else host.workers\n",
        "tests/test_sources.py",
    ),
    Break(
        "a lost GPU costs its worker alone",
        "end a pool for a refusal after a worker was ready",
        "arc_submit/workers/supervisor.py",
        'refused = worker.refusal if not self._ever_ready else ""',
        "refused = worker.refusal",
        "tests/test_pool.py -k 'not_final_while'",
    ),
    Break(
        "a lost GPU costs its worker alone",
        "end a pool whose devices are all lost for a while",
        "arc_submit/workers/supervisor.py",
        "waits = self._ever_ready and self.timeouts.wait_for_retired",
        "waits = False",
        "tests/test_pool.py tests/test_simulation.py -k 'all_lost or ends_no_source'",
    ),
    Break(
        "7 refused at once",
        "let a run begin without its GPUs",
        "arc_submit/run/resolve.py",
        'found = check_devices(group.config.devices) if config.executor == "local" else {}',
        "found = {}",
        "tests/test_lost_sources.py -k before_any_work",
    ),
    Break(
        "2 in time",
        "let the gain scheduler begin a job that ends too late",
        "arc_submit/scheduling/gain_scheduler.py",
        "np.where(self.costs.upper_bound(table.seconds) <= left, table.gain, 0.0)",
        "table.gain",
        "tests/test_gain_scheduler.py -k deadline",
    ),
    Break(
        "2 in time",
        "divide more time than there is",
        "arc_submit/scheduling/gain_scheduler.py",
        "if at(middle)[1] <= capacity else (middle, high)",
        "if at(middle)[1] <= 2 * capacity else (middle, high)",
        "tests/test_gain_scheduler.py -k price",
    ),
    Break(
        "3 no wait without a deadline",
        "wait for a picture that hangs",
        "arc_submit/report/time_limit.py",
        "thread.join(min(seconds, threading.TIMEOUT_MAX))",
        "thread.join()",
        "tests/test_report.py -k hangs --timeout 20",
    ),
    Break(
        "8 one clear line",
        "put different tasks together that have one id",
        "arc_submit/run/ensemble_inputs.py",
        "if task != other:",
        "if False:",
        "tests/test_ensemble_inputs.py -k different_tasks",
    ),
    Break(
        "2 nothing lost",
        "keep one prediction of each candidate in a pool",
        "arc_submit/ensemble/pool.py",
        "for value in values]}",
        "for value in values[:1]]}",
        "tests/test_ensemble_pool.py -k lost",
    ),
    Break(
        "3 no wait without a deadline",
        "let the sources take the judge's time",
        "arc_submit/run/pipeline.py",
        "deadline - judge_seconds",
        "deadline",
        "tests/test_judge_stage.py -k cut",
    ),
    Break(
        "2 nothing lost",
        "ask again what a judge has answered",
        "arc_submit/ensemble/judge_worker.py",
        "lambda one: one.key in known)",
        "lambda one: False)",
        "tests/test_judge_stage.py -k resumed",
    ),
    Break(
        "4 failure stays alone",
        "rank outputs that are not judged by nothing but their odds",
        "arc_submit/ensemble/combination.py",
        "return replace(self, method=self.fallback)",
        'return replace(self, method="probability")',
        "tests/test_combination.py -k without_a_judge",
    ),
    Break(
        "6 no remote code, no pickle",
        "let a model's program use attributes that are not listed",
        "arc_submit/programs/python/subset.py",
        "if node.attr not in allowed:",
        "if False:",
        "tests/test_python_subset.py -k refuses",
    ),
    Break(
        "3 no wait without a deadline",
        "wait for a program that does not end",
        "arc_submit/programs/python/process.py",
        "(late or _cpu_seconds(child.pid) - used > cpu_seconds)",
        "late",
        "tests/test_python_subset.py -k killed",
    ),
    Break(
        "2 nothing lost",
        "ask again for programs that a model has written",
        "arc_submit/programs/code_task.py",
        "if number in answered:",
        "if False:",
        "tests/test_code_source.py -k killed",
    ),
    Break(
        "2 nothing lost",
        "learn from programs before they answer their task",
        "arc_submit/programs/code_task.py",
        "self.answer(first)",
        "pass",
        "tests/test_code_learning.py -k beats",
    ),
    Break(
        "5 same seed, same predictions",
        "learn from programs in the order in which they came",
        "arc_submit/programs/code_task.py",
        "key=lambda one: (one[0].turn, one[0].number))",
        "key=lambda one: one[0].turn)",
        "tests/test_code_learning.py -k order_in_which",
    ),
]


def main() -> int:
    chosen = [int(argument) for argument in sys.argv[1:]] or list(range(len(BREAKS)))
    unnoticed = 0
    for number in chosen:
        broken = BREAKS[number]
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder)
            for name in ("arc_submit", "tests", "notebooks", "benchmarks"):
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "kernel-metadata.json"):
                shutil.copy(ROOT / name, copy / name)
            (copy / "models").symlink_to(ROOT / "models")
            source = (copy / broken.file).read_text()
            if source.count(broken.old) < 1:
                print(f"{number:>2} STALE  {broken.invariant}: {broken.how} (its text is no longer in {broken.file})", flush=True)
                unnoticed += 1
                continue
            (copy / broken.file).write_text(source.replace(broken.old, broken.new))
            environment = {**os.environ, "PYTHONPATH": str(copy)}
            command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider {broken.tests}"
            process = subprocess.run(command, shell=True, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            red = process.returncode == 1
            first = next((line for line in process.stdout.splitlines() if line.startswith("FAILED")), "").removeprefix("FAILED ")
            why = first.split(" - ")[0] if red else f"pytest exit code {process.returncode}: {broken.tests}"
            print(f"{number:>2} {'red   ' if red else 'GREEN '} {broken.invariant}: {broken.how}; {why}", flush=True)
            unnoticed += not red
    print(f"{len(chosen) - unnoticed} breaks noticed, {unnoticed} not")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
