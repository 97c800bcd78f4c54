"""Families of base models, tiny and with random weights: how far what we compute is from transformers and PEFT.

Each is served, scored, searched, fine-tuned and merged as a competitor's model would be, with windows that its prompts exceed and caps and
scales that bite. The reference is transformers' own forward pass with its "eager" attention, and PEFT's adapter in it.

    python tests/families.py [NAME...]    # the table in docs/models.md, half a minute of one core
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from arc_submit.base_model.adapter_files import factor_names
from arc_submit.base_model.attention import ATTENTION
from arc_submit.base_model.loading import load_model
from arc_submit.base_model.lora import attach
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.base_model.precision import choose_training_precision
from arc_submit.base_model.saving import merge_adapter
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune.loss import batch_loss, check_loss, make_batches
from arc_submit.finetune.samples import Sample
from arc_submit.inference.dfs import SearchLimits, search_completions
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import load_transformers_engine

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 96,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj")
WINDOW = 12
ONE_OF_EACH = ["sliding_attention", "full_attention"]
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
STATES = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
# The classes' prefix in transformers, and what makes the family more than a row of plain layers.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2": ("Qwen2", {}),
    "Qwen2, windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "Qwen3": ("Qwen3", {}),
    "Qwen3-MoE": ("Qwen3Moe", {"num_experts": 4, **EXPERTS}),
    "Llama 3, SmolLM2": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "Mistral": ("Mistral", {"sliding_window": WINDOW}),
    "Mixtral": ("Mixtral", {"sliding_window": WINDOW, "num_local_experts": 4}),
    "Gemma 2": (
        "Gemma2",
        {"sliding_window": WINDOW, "attn_logit_softcapping": 1.0, "final_logit_softcapping": 4.0, "query_pre_attn_scalar": 16},
    ),
    "Gemma 3": ("Gemma3", {"sliding_window": WINDOW, "layer_types": ONE_OF_EACH, "query_pre_attn_scalar": 16}),
    "Phi-3": ("Phi3", {"sliding_window": WINDOW}),
    "OLMo": ("Olmo", {"clip_qkv": 2.0}),
    "OLMo 2": ("Olmo2", {}),
    "OLMo 3": ("Olmo3", {"sliding_window": WINDOW, "layer_types": ONE_OF_EACH}),
    "Granite": ("Granite", {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.2, "attention_multiplier": 0.1}),
    "SmolLM3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "Cohere 2": ("Cohere2", {"sliding_window": WINDOW, "layer_types": ONE_OF_EACH, "logit_scale": 0.25}),
    "LFM2": ("Lfm2", {"layer_types": ["conv", "full_attention"]}),
    "Qwen3.5": ("Qwen3_5", {"layer_types": ["linear_attention", "full_attention"], **STATES}),
}


@dataclass(frozen=True)
class Deviation:
    """The largest difference from the reference, for the base and with an adapter.

    Attributes:
        generate: of a completion's log-probability, nats.
        greedy: greedy tokens that are not the reference's most probable, beyond a tie.
        search: of the log-probability of an answer of the depth-first search, nats.
        score: of a continuation's log-probability, nats.
        loss: of the training loss, nats a token.
        gradient: of a layer's low-rank weights' gradient, as a share of its largest.
        merged: of the merged model's log-probabilities, nats.
    """

    generate: float
    greedy: int
    search: float
    score: float
    loss: float
    gradient: float
    merged: float


def make_model(family: str, **more: Any) -> Any:
    """The tiny random model of a family, with more values of its configuration."""
    prefix, changes = FAMILIES[family]
    torch.manual_seed(0)
    text_config = getattr(transformers, f"{prefix}TextConfig", None)
    config = (text_config or getattr(transformers, f"{prefix}Config"))(**{**SIZES, **changes, **more})
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    return model


def measure(family: str, folder: Path, targets: tuple[str, ...] = LAYERS, **more: Any) -> Deviation:
    """Serve, score, search, fine-tune and merge the family's model, which is written into a folder.

    Args:
        targets: names of layers to adapt, of which the model need not have all.
        more: values of its configuration.
    """
    model = make_model(family, **more)
    base, adapter = folder / "base", folder / "adapter"
    model.save_pretrained(base)
    make_pocket_tokenizer().save_pretrained(base)
    layers = tuple(sorted({name.rpartition(".")[2] for name, _ in model.named_modules()} & set(targets)))
    torch.manual_seed(1)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        base, attn_implementation="eager", dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    settings = LoraConfig(r=3, lora_alpha=6, target_modules=list(layers), init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(plain, settings).save_pretrained(adapter)
    tuned = PeftModel.from_pretrained(make_eager(base), adapter, is_trainable=True, local_files_only=True).eval()

    prompt = torch.randint(3, 90, (40,)).tolist()
    engine = load_transformers_engine(base, CPU, 3)[0]
    check_loss(engine.model, choose_training_precision(CPU))
    generate, greedy, search, score = 0.0, 0, 0.0, 0.0
    for reference, which in ((make_eager(base), None), (tuned, adapter)):

        def logprobs(prompt: list[int], tokens: list[int], reference: Any = reference) -> torch.Tensor:
            with torch.no_grad():
                logits = reference(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            return logits.float().log_softmax(-1)

        def total(prompt: list[int], tokens: list[int]) -> float:
            return float(logprobs(prompt, tokens).gather(1, torch.tensor(tokens)[:, None]).sum())

        engine.end_id = -1
        for done in engine.generate([Request(str(length), prompt[:length], 9, which) for length in (5, 20, 40)]):
            own = prompt[: int(done.id)]
            generate = max(generate, abs(total(own, done.tokens) - done.logprob))
            best = logprobs(own, done.tokens)
            chosen = best.gather(1, torch.tensor(done.tokens)[:, None])[:, 0]
            greedy += int((best.max(-1).values - chosen > 1e-4).sum())
            if done.id == "40":
                engine.end_id = done.tokens[2]
        found = list(search_completions(engine, [Request("s", prompt, 4, which)], SearchLimits(1e-3, 40)))
        assert found, "the search finds nothing"
        search = max(search, *(abs(total(prompt, one.tokens) - one.logprob) for one in found))
        tokens = [prompt[3:9], prompt[1:4], [7]]
        scores = engine.score(prompt, tokens, which)
        score = max(score, *(abs(total(prompt, one) - value) for one, value in zip(tokens, scores, strict=True)))
    loss, gradient = compare_gradients(base, adapter, tuned, prompt)
    merge_adapter(base, adapter, folder / "merged")
    with torch.no_grad():
        ids = torch.tensor([prompt])
        merged, expected = (one(input_ids=ids).logits.float().log_softmax(-1) for one in (make_eager(folder / "merged"), tuned))
    return Deviation(generate, greedy, search, score, loss, gradient, float((merged - expected).abs().max()))


def make_eager(folder: Path) -> Any:
    """transformers' own model with its own attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()


def compare_gradients(base: Path, adapter: Path, theirs: Any, prompt: list[int]) -> tuple[float, float]:
    """Differences of the loss and of the gradient of one batch of two samples."""
    samples = [Sample(prompt, list(range(30, 40))), Sample(prompt[5:30], list(range(20, 25)))]
    losses = []
    for sample in samples:
        logits = theirs(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0].float().log_softmax(-1)
        losses += [-logits[position - 1, sample.ids[position]] for position in sample.positions]
    expected = torch.stack(losses).mean()
    expected.backward()
    own = attach(load_model(base, CPU, torch.float32, ATTENTION), LoraSettings(), 0, adapter)
    loss, _ = batch_loss(own.model, make_batches([samples], 2, CPU)[0], choose_training_precision(CPU))
    loss.backward()
    wanted = {name.replace(".default", ""): parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    share = 0.0
    for name, layer in own.layers.items():
        own_largest = own_difference = 0.0
        for factor, found in zip(factor_names(name, layer.base), layer.gradients, strict=False):
            grad = wanted[factor]
            own_difference = max(own_difference, float((grad - found).abs().max()))
            own_largest = max(own_largest, float(grad.abs().max()))
        assert own_largest > 0, name
        share = max(share, own_difference / own_largest)
    return abs(expected.item() - loss.item()), share


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Deviations of families of base models from transformers and PEFT.")
    parser.add_argument("names", nargs="*", default=list(FAMILIES), metavar="NAME", help=", ".join(FAMILIES))
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print("| family | load | generate | search (DFS) | score | TTFT loss | TTFT gradient | merge |\n|---|---|---|---|---|---|---|---|")
    for family in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as folder:
            one = measure(family, Path(folder))
        values = (one.generate, one.search, one.score, one.loss, one.gradient, one.merged)
        print(f"| {family} | whole | {' | '.join(f'{value:.0e}' for value in values)} |", flush=True)
        if one.greedy:
            raise SystemExit(f"{family}: {one.greedy} greedy tokens differ")


if __name__ == "__main__":
    main()
