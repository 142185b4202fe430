"""NVIDIA ModelOpt: `auto_quantize` with the scores of its gradient method, Σ(g ⊙ ΔY)² at the output of each layer, and its integer program.

ModelOpt is given every advantage that its interface allows: each layer has a search space of its own, whose formats carry the bits that they take by
the count of the race, so its constraint is our budget; the layers that it would tie for TensorRT-LLM (q, k and v; gate and up) are free; and its own
integers, symmetric and with one level fewer, are replaced by the codec of the race through `register_quant_backend`, so that it scores the errors
that will be made. The experts of a layer stay one decision, as they are one module to it.

Counted: one forward and one backward pass for each calibration sequence. Not counted, in its favour: the layers are run again for every format, and
the blocks a second time for its gradient checkpointing. Calibration takes no tokens, since the range of a weight needs none.
"""

import warnings
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.quantization.algorithms import AutoQuantizeGradientSearcher
from modelopt.torch.quantization.nn.modules.tensor_quantizer import TensorQuantizer, register_quant_backend
from question import Answer, Clock, Layers, Question, ask, load, write

CODEC, HEAD, QUANTIZER = "integers in groups", "*lm_head*", "weight_quantizer"


def round_trip(weights: torch.Tensor, quantizer: TensorQuantizer) -> torch.Tensor:
    """Round `weights` `(n_rows, n_columns)` as the race's codec does: between the least and the largest of each group, in half precision."""
    n_columns, n_levels = weights.shape[-1], 2**quantizer.num_bits - 1
    group = quantizer.backend_extra_args["group"] or n_columns
    padded = torch.nn.functional.pad(weights, (0, -n_columns % group), mode="replicate")
    grouped = padded.reshape(len(weights), -1, group)
    minimum = grouped.amin(-1, keepdim=True).half().float()
    scale = ((grouped.amax(-1, keepdim=True) - minimum) / n_levels).half().float()
    codes = ((grouped - minimum) / scale.clamp(min=1e-30)).round().clamp(0, n_levels)
    return (minimum + scale * codes).reshape(len(weights), -1)[:, :n_columns]


def recipe(question: Question, names: list[str], bits: int) -> dict[str, Any]:
    """ModelOpt's format of `bits` for the layers `names`, with the bits per weight that it takes there."""
    cfg = {"num_bits": bits, "backend": CODEC, "backend_extra_args": {"group": question.group}}
    return {
        "quant_cfg": [{"quantizer_name": "*", "enable": False}, {"quantizer_name": f"*{QUANTIZER}", "cfg": cfg, "enable": True}],
        "algorithm": "max",
        "effective_bits": question.stored(dict.fromkeys(names, bits)),
    }


def spaces(question: Question) -> list[dict[str, Any]]:
    """A search space for each module: the widths, and no way to leave it as it is."""
    modules: dict[str, list[str]] = {}
    for name in question.shapes:
        modules.setdefault(name.rpartition(".")[0] if ".experts." in name else name, []).append(name)
    return [
        {"module_name_patterns": [module], "quantization_formats": [recipe(question, names, bits) for bits in question.bits], "allow_no_quant": False}
        for module, names in modules.items()
    ]


def score(question: Question) -> dict[str, Any]:
    """The state of ModelOpt's search, from which any budget can be solved."""
    model = load(question)
    AutoQuantizeGradientSearcher.quant_grouping_rules = []
    _, state = mtq.auto_quantize(
        model,
        constraints={"effective_bits": max(question.bits), "cost": {"excluded_module_name_patterns": [HEAD]}},
        quantization_formats=[recipe(question, list(question.shapes), max(question.bits))],
        module_search_spaces=spaces(question),
        data_loader=question.batches(1),
        forward_step=lambda model, ids: model(input_ids=ids, labels=ids, use_cache=False),
        loss_func=lambda output, _: output.loss,
        num_calib_steps=0,
        num_score_steps=len(question.tokens),
        disabled_layers=[HEAD],
    )
    return state


def solve(question: Question, state: dict[str, Any], budget: float) -> Layers:
    """ModelOpt's map for a budget."""
    entries = mtq.get_auto_quantize_config(state, {"effective_bits": budget})["quant_cfg"]
    widths = {entry["quantizer_name"]: entry["cfg"]["num_bits"] for entry in entries if entry.get("cfg") and entry["enable"]}
    layers = {name.removesuffix(QUANTIZER).rstrip("._"): bits for name, bits in widths.items()}
    return {name: layers[name] for name in question.shapes}


def main() -> None:
    """Run the benchmark from the command line."""
    question = ask(__doc__)
    warnings.simplefilter("ignore")
    register_quant_backend(CODEC, round_trip)
    clock = Clock()
    state = score(question)
    met = [budget for budget in question.budgets if question.stored(question.uniform(min(question.bits))) <= budget]
    maps = {budget: solve(question, state, budget) for budget in met}
    notes = ["the experts of a layer are one decision"] if any(".experts." in name for name in question.shapes) else []
    write(question, "modelopt gradient", "nvidia-modelopt", Answer(maps, question.tokens.size, question.tokens.size, clock.read(), notes))


if __name__ == "__main__":
    main()
