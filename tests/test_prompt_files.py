"""Prompts as files and a model's configuration as data: what they write, what is refused, and what two runs share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_grid
from tokens16 import make_tokenizer

from arc_submit import cli
from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.finetune.samples import TaskSampler
from arc_submit.finetune.settings import TTFTSettings
from arc_submit.language.prompt_config import (
    CONFIG_FILE,
    NO_CHAT_TEMPLATE,
    PromptConfig,
    format_names,
    read_prompt_config,
    resolve_prompt_config,
)
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import is_grid
from arc_submit.options import identity_values
from arc_submit.run.config import RunConfig
from arc_submit.run.fingerprint import infer_fingerprint
from arc_submit.run.presets import make_config, make_infer_config
from arc_submit.train.config import TrainConfig
from arc_submit.train.mixture import parse_part
from arc_submit.train.train import resolve_prompts

PAIR = Pair(frozen(np.array([[1, 2], [3, 4]])), frozen(np.array([[4]])))
TEST, ANSWER = frozen(np.array([[5]])), frozen(np.array([[4]]))
OWN = """{% block system %}Solve.{% endblock %}
{% block pairs %}
{% for pair in pairs %}
{{ pair.input }}
becomes
{{ pair.output }}

{% endfor %}
{% endblock %}
{% block test %}
{{ test }}
becomes
{% endblock %}
{% block answer %}so: {{ answer }}{{ eos_token }}{% endblock %}
"""


def _asked(name: str, tokenizer: Any) -> PromptTokenizer:
    config = read_prompt_config(Path("nowhere"), Path(name))
    assert config is not None
    return PromptTokenizer.from_config(tokenizer, config)


def test_nvarc_2025_token_by_token() -> None:
    writer = _asked("nvarc-2025", make_tokenizer())
    ids, start = writer.sample_ids(writer.prompt.turns([PAIR], TEST), ANSWER)
    assert ids == [14, 11, 10, 1, 2, 10, 3, 4, 15, 14, 12, 10, 4, 15, 14, 11, 10, 5, 15, 14, 12, 10, 4, 15]
    assert (start, writer.end_ids, writer.reuse) == (22, (15,), True)
    assert same_grid(writer.decode(ids[start:]), ANSWER)
    assert writer.answer_length((30, 30)) == 30 * 31


def test_nvarc_2025_is_fine_tuned_on_every_reply() -> None:
    writer = _asked("nvarc-2025", make_tokenizer())
    rng = np.random.default_rng(0)
    task = Task("t", tuple(Pair(random_grid(rng, 4), random_grid(rng, 4)) for _ in range(3)), (TEST,))
    assert make_config(model_config="nvarc-2025").ttft.loss_on == "replies"
    sample = TaskSampler(writer, TTFTSettings(loss_on="replies"), 4000, 0).draw(task, 0)
    # After "assistant" and its newline comes a reply, up to its end mark.
    expected: list[int] = []
    replying = False
    for position, token in enumerate(sample.ids):
        if replying:
            expected.append(position)
        replying = (replying and token != 15) or sample.ids[max(0, position - 1) : position + 1] == [12, 10]
    assert sample.positions == expected
    assert [sample.ids[position] for position in expected].count(15) == 3


def test_architects_2024_as_text() -> None:
    writer = _asked("architects-2024", _letters_tokenizer())
    turns = writer.prompt.turns([PAIR], TEST)
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjklmnpqrstuvwxyz"
    assert writer.text(turns) == letters + "I12\n34\n+/-=O4\n<eos>I5\n+/-=O"
    ids, start = writer.sample_ids(turns, ANSWER)
    assert writer.tokenizer.decode(ids[start:]) == "4\n<eos>"
    assert writer.answer_length((1, 1)) == 3
    assert same_grid(writer.decode(ids[start:]), ANSWER)
    loss = TaskSampler(writer, TTFTSettings(loss_on="replies"), 4000, 0).draw(Task("t", (PAIR, PAIR), (TEST,)), 0)
    assert [loss.ids[position] for position in loss.positions].count(writer.end_id) == 2


def _letters_tokenizer() -> Any:
    """A token for each character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(i) for i in range(32, 127)] + ["\n", "<eos>", "<unk>"]
    base = Tokenizer(models.WordLevel({token: i for i, token in enumerate(characters)}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    base.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<eos>", unk_token="<unk>", clean_up_tokenization_spaces=False)


def test_a_prompt_file_with_and_without_a_chat_template() -> None:
    tokenizer = _letters_tokenizer()
    plain = PromptConfig("MinimalGridEncoder()", "own.jinja", 500, OWN, NO_CHAT_TEMPLATE)
    chat = replace(
        plain,
        chat_template="{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
    )
    question = "12\n34\nbecomes\n4\n\n5\nbecomes\n"
    for config, text in ((plain, f"Solve.{question}"), (chat, f"[system]Solve.[user]{question}[assistant]")):
        writer = PromptTokenizer.from_config(tokenizer, config)
        turns = writer.prompt.turns([PAIR], TEST)
        assert writer.text(turns) == text
        ids, start = writer.sample_ids(turns, ANSWER)
        assert tokenizer.decode(ids) == f"{text}so: 4<eos>"
        assert writer.answer_length((1, 1)) == len(ids) - start
        assert same_grid(writer.decode(ids[start:]), ANSWER)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("{% block test %}", "{% block question %}"), "has a block question"),
        (("{% block answer %}so: {{ answer }}{{ eos_token }}{% endblock %}", ""), "has no block answer"),
        (("in pairs", "in pairs | reverse"), "with 2 train pairs it writes 5 grids; each pair's input and output"),
        (("{{ pair.output }}", ""), "with 1 train pairs it writes 2 grids"),
        (("{{ pair.output }}", "{{ pair.output }}{{ pair.output }}"), "with 1 train pairs it writes 4 grids"),
        (("{{ pair.output }}", "{{ pair.outputs }}"), "block pairs cannot be rendered"),
        (("{{ answer }}", "7"), "must write {{ answer }} once"),
        (("{{ answer }}", "{{ answer }} or {{ answer }}"), "must write {{ answer }} once"),
        (("{{ test }}", "{{ test | trim }}"), "block test changes a grid's text"),
        (("{{ pair.input }}", "{{ pair.input.splitlines() | first }}"), "block pairs changes a grid's text"),
        (("{{ test }}", "{{ ''.__class__.__mro__ }}{{ test }}"), "block test cannot be rendered"),
        (("{{ test }}", "{{ test }}{% for i in range(10 ** 9) %}{% endfor %}"), "block test cannot be rendered"),
        (("{{ test }}", "{{ test "), "cannot be read"),
        (("\nbecomes\n{{ pair.output }}\n\n", "\n{{ pair.output }}\n"), "cannot be told apart"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused_when_it_is_read(change: tuple[str, str], words: str) -> None:
    assert change[0] in OWN
    with pytest.raises(ConfigError, match=r"^prompt own\.jinja: ") as refused:
        PromptConfig("MinimalGridEncoder()", "own.jinja", 500, OWN.replace(*change)).version()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unread_answer_is_refused_with_its_tokenizer() -> None:
    config = PromptConfig("MinimalGridEncoder()", "own.jinja", 500, OWN.replace("{{ eos_token }}", ""), NO_CHAT_TEMPLATE)
    with pytest.raises(ConfigError, match="does not end an answer with an end mark"):
        PromptTokenizer.from_config(_letters_tokenizer(), config)


def _model(folder: Path, **values: Any) -> Path:
    """A folder with the files that say how a model is asked."""
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 9000}')
    if values:
        (folder / CONFIG_FILE).write_text(
            json.dumps({"grid_encoder": "MinimalGridEncoder()", "prompt": "output-from-turns-v0", "max_seq_len": 100, **values})
        )
    return folder


def test_files_beside_the_model_are_read_and_written_again(tmp_path: Path) -> None:
    model = _model(tmp_path / "model", prompt="own.jinja", chat_template="chat.jinja", end_marks="<eos>", options={"lora_rank": 4})
    (model / "own.jinja").write_text(OWN)
    (model / "chat.jinja").write_text("{{ messages }}")
    config = resolve_prompt_config(model, None, None, None)
    assert config == PromptConfig("MinimalGridEncoder()", "own.jinja", 100, OWN, "{{ messages }}", ("<eos>",), {"lora_rank": 4})
    (tmp_path / "copy").mkdir()
    config.save(tmp_path / "copy")
    assert read_prompt_config(tmp_path / "copy") == config
    assert read_prompt_config(tmp_path / "copy") == read_prompt_config(Path("nowhere"), tmp_path / "copy")
    # The pocket model's file has no more keys than before.
    PromptConfig("A()", "p", 7).save(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / CONFIG_FILE).read_text()) == {"grid_encoder": "A()", "prompt": "p", "max_seq_len": 7}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"chat_tempalte": "x.jinja"}, "the key chat_tempalte is not known"),
        ({"chat_template": "missing.jinja"}, "chat_template missing.jinja: cannot be read"),
        ({"chat_template": "../x.jinja"}, "name a file that lies beside it"),
        ({"prompt": "/x.jinja"}, "name a file that lies beside it"),
        ({"prompt": "missing.jinja"}, "prompt missing.jinja: cannot be read"),
        ({"end_marks": [1]}, "end_marks is a list of texts"),
        ({"options": [1]}, "options is an object"),
        ({"options": {"budget": "9h"}}, "budget is no setting of a model"),
        ({"options": {"lora_rang": 9}}, "options: no such setting: lora_rang"),
        ({"options": {"lora_rank": 0}}, "--lora-rank 0"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_file(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    model = _model(tmp_path / "model", **values)
    with pytest.raises(ArcSubmitError) as refused:
        make_config(model=model).prompt_config()
    assert words in str(refused.value)
    assert isinstance(refused.value, DataError | ConfigError)


def test_a_models_options_are_stronger_than_a_presets_and_weaker_than_the_command_lines(tmp_path: Path) -> None:
    model = _model(tmp_path / "model", options={"lora_rank": 4, "lora_targets": ["q_proj"], "ttft_steps": 7, "views": 3})
    config = make_config(model=model, ttft_steps=9)
    assert (config.lora.rank, config.lora.targets, config.ttft.steps, config.views) == (4, ("q_proj",), 9, 3)
    assert config.lora.alpha == make_config().lora.alpha
    assert make_infer_config(model=model).views == 3
    assert make_infer_config(model=model, views=2).views == 2
    assert make_config(model_config="nvarc-2025", lora_rank=8).lora.rank == 8


def test_the_fingerprint_holds_the_content_that_is_given(tmp_path: Path) -> None:
    model = _model(tmp_path / "model", chat_template=NO_CHAT_TEMPLATE)
    (tmp_path / "own.jinja").write_text(OWN)
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "own.jinja").write_text(OWN)
    (tmp_path / "other.jinja").write_text(OWN.replace("Solve", "Do"))

    def fingerprint(**changes: Any) -> dict[str, Any]:
        return infer_fingerprint(replace(RunConfig(model=model, out=tmp_path / "run", sources=("frozen",)), **changes), None)

    assert "prompt_config" not in fingerprint()
    assert fingerprint(prompt=str(tmp_path / "own.jinja")) == fingerprint(prompt=str(tmp_path / "moved" / "own.jinja"))
    given = [
        fingerprint(prompt=str(tmp_path / "own.jinja")),
        fingerprint(prompt=str(tmp_path / "other.jinja")),
        fingerprint(model_config=Path("nvarc-2025")),
        fingerprint(model_config=Path("architects-2024")),
        fingerprint(chat_template=tmp_path / "other.jinja"),
        fingerprint(chat_template=tmp_path / "own.jinja"),
    ]
    assert len({json.dumps(one) for one in given}) == len(given)


def test_a_file_that_is_given_names_files_anywhere(tmp_path: Path) -> None:
    """Their content is in the fingerprint; of a model's own file it is not, so that one names files beside it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "own.jinja").write_text(OWN)
    own = _model(tmp_path / "model", prompt=str(tmp_path / "templates" / "own.jinja"), chat_template="../templates/own.jinja") / CONFIG_FILE
    config = read_prompt_config(Path("nowhere"), own)
    assert config is not None
    assert (config.prompt, config.prompt_text, config.chat_template) == ("own.jinja", OWN, OWN)


def test_every_format_that_comes_with_the_project_can_be_read() -> None:
    assert format_names() == ["architects-2024", "nvarc-2025"]
    for name in format_names():
        config = read_prompt_config(Path("nowhere"), Path(name))
        assert config is not None
        turns = config.version().turns([PAIR], TEST)
        assert sum(is_grid(part) for turn in turns for part in turn.parts) == 3
        assert make_config(model_config=name).lora.rank > 32


def test_training_takes_the_prompt_file_that_the_configuration_names(tiny_model: Path, tmp_path: Path) -> None:
    """Its samples, and the configuration beside its result."""
    text = "{% block pairs %}{% for pair in pairs %}{{ pair.input }}<|answer|>{{ pair.output }}{{ eos_token }}{% endfor %}{% endblock %}"
    text += "{% block test %}{{ test }}<|answer|>{% endblock %}{% block answer %}{{ answer }}{{ eos_token }}{% endblock %}"
    (tmp_path / "own.jinja").write_text(text)
    file = tmp_path / "asked.json"
    file.write_text(
        json.dumps({"grid_encoder": "CompactGridEncoder()", "prompt": "own.jinja", "max_seq_len": 300, "chat_template": "none"})
    )
    parts = (parse_part("data.jsonl,own.jinja"),)
    config = TrainConfig(model=tiny_model, out=tmp_path / "out", parts=parts, model_config=file, benchmarks=())
    asked, tokenizers = resolve_prompts(config)
    assert asked == read_prompt_config(Path("nowhere"), file)
    writer = tokenizers["own.jinja"]
    ids, start = writer.sample_ids(writer.prompt.turns([PAIR], TEST), ANSWER)
    assert writer.tokenizer.decode(ids[start:], skip_special_tokens=False) == "AAA4<|end|>"
    with pytest.raises(ConfigError, match=r"prompt own\.jinja: name the file in the model's arc_submit\.json"):
        resolve_prompts(replace(config, model_config=None))


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = _model(tmp_path / "bare")
    with pytest.raises(ConfigError, match="give --model-config FILE, or --grid-encoder"):
        resolve_prompt_config(bare, None, None, None)
    with pytest.raises(
        ConfigError, match=r"no such file; give a file like a model's arc_submit\.json, or one of architects-2024, nvarc-2025"
    ):
        resolve_prompt_config(bare, None, None, None, Path("nvarc"))
    with pytest.raises(ConfigError, match="give one with --chat-template FILE"):
        PromptTokenizer.from_config(make_tokenizer(), PromptConfig("MinimalGridEncoder()", "output-from-turns-v0", 99))
    with pytest.raises(ConfigError, match="the end mark '<no>' is 4 tokens, not one token"):
        PromptTokenizer.from_config(
            make_pocket_tokenizer(), PromptConfig("CompactGridEncoder()", "output-from-turns-v0", 99, end_marks=("<no>",))
        )
    for command in ("run", "infer", "finetune", "train"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        shown = capsys.readouterr().out
        assert "--chat-template" in shown
        assert "--model-config" in shown


def test_the_fingerprint_of_a_run_that_uses_no_such_file_is_as_before() -> None:
    values = (
        set(identity_values(RunConfig())) | set(identity_values(LoraSettings(), "lora_")) | set(identity_values(TTFTSettings(), "ttft_"))
    )
    assert not values & {"model_config", "chat_template", "prompt_config"}
