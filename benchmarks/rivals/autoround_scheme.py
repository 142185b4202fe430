"""Intel AutoRound: `AutoScheme` with its "delta loss", Σ|g · (W − Q(W))| where all layers are quantized to the option, and its knapsack.

AutoRound scores each option in passes of its own, with all layers at that option, and keeps the scores in files. Its dynamic program is then given
the bits that a layer takes by the count of the race instead of its own (which counts a zero point of as many bits as the codes), so that its
constraint is our budget. Options are its asymmetric integers, rounded to nearest; nothing is tied but the experts of a layer, as it ties them.

Counted: one forward and one backward pass for each option and calibration sequence. Not counted, in its favour: the second run of each block for its
gradient checkpointing. It needs no further pass: the map is known before anything is quantized. It skips a sequence more than half of which is
its own last token.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
from auto_round.auto_scheme.delta_loss import choose_bits_per_layer_with_path
from auto_round.auto_scheme.gen_auto_scheme import AutoScheme, GenScheme
from auto_round.calib_dataset import register_dataset
from auto_round.modeling.fused_moe.moe_experts_interface import prepare_model_for_moe_quantization
from auto_round.schemes import QuantizationScheme
from question import Answer, Clock, Layers, Question, ask, load, write
from torch import nn
from transformers import AutoTokenizer

TEXT = "tokens of the race"
Losses = dict[str, dict[int, float]]  # unit → bits → loss


def unit_of(name: str) -> str:
    """Return the unit of a layer: the layer itself, or the experts that it belongs to."""
    before, experts, _ = name.partition(".experts.")
    return before + experts.rstrip(".")


def score(question: Question, folder: Path) -> Losses:
    """AutoRound's losses, summed over the layers of a unit; `folder` takes its files."""
    os.environ.update(AR_AUTO_SCHEME_CACHE=str(folder), AR_DISABLE_DATASET_SUBPROCESS="1", AR_LOG_LEVEL="ERROR")
    rows = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in question.tokens]
    register_dataset(TEXT)(lambda **_: datasets.Dataset.from_list(rows))
    model = load(question)
    if any(".experts." in name for name in question.shapes):
        prepare_model_for_moe_quantization(model)
    units = {unit_of(name) for name in question.shapes}
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and unit_of(name) in units]
    GenScheme(
        scheme(question), model, linears, {}, dataset=TEXT, device_map="cpu", tokenizer=AutoTokenizer.from_pretrained(question.folder)
    ).get_layer_config()
    losses: Losses = {unit: dict.fromkeys(question.bits, 0.0) for unit in units}
    for record in (json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")):
        for name, (_, loss) in record["layer_scores"].items():
            losses[unit_of(name)][record["scheme"]["bits"]] += loss
    return losses


def scheme(question: Question) -> AutoScheme:
    """Return AutoRound's scheme: the options, the tokens, and a target that any of its own accounts allows."""
    options = tuple(QuantizationScheme(bits=bits, group_size=question.group or -1, sym=False, act_bits=16) for bits in question.bits)
    n_sequences, length = question.tokens.shape
    return AutoScheme(
        avg_bits=max(question.bits),
        options=options,
        nsamples=n_sequences,
        seqlen=length,
        batch_size=1,
        low_gpu_mem_usage=False,
        low_cpu_mem_usage=False,
        enable_torch_compile=False,
    )


def solve(question: Question, losses: Losses, budget: float) -> Layers | None:
    """AutoRound's map for a budget, None where there is none."""
    members: dict[str, list[str]] = {}
    for name in question.shapes:
        members.setdefault(unit_of(name), []).append(name)
    options = {
        unit: [(bits, sum(question.size_bits(name, bits) for name in names), losses[unit][bits], names) for bits in question.bits]
        for unit, names in members.items()
    }
    n_weights = sum(n_rows * n_columns for n_rows, n_columns in question.shapes.values())
    _, path = choose_bits_per_layer_with_path(options, int(budget * n_weights))
    return {name: bits for names, bits in path for name in names} if path else None


def main() -> None:
    """Run the benchmark from the command line."""
    question = ask(__doc__)
    clock = Clock()
    with TemporaryDirectory() as folder:
        losses = score(question, Path(folder))
    maps = {budget: layers for budget in question.budgets if (layers := solve(question, losses, budget))}
    n_tokens = question.tokens.size * len(question.bits)
    notes = ["the experts of a layer are one decision"] if any(".experts." in name for name in question.shapes) else []
    write(question, "autoround autoscheme", "auto-round", Answer(maps, n_tokens, n_tokens, clock.read(), notes))


if __name__ == "__main__":
    main()
