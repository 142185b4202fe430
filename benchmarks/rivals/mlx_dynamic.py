"""mlx-lm's dynamic quantization: the alignment ⟨∇KL at the low-bit model, W_low − W_high⟩ per weight, and a threshold on it.

It chooses between two widths, so each budget is asked with the two neighbouring widths whose uniform maps enclose it, and each pair is scored anew.
Its rule is kept: layers whose sensitivity exceeds a threshold get the higher width; the threshold is the smallest that the budget allows by the count
of the race, found among the sensitivities instead of by its halving, which stops early and counts the embedding. Embedding, head and router are
exchanged for modules that it cannot quantize. It stacks a layer's experts as all gates, all ups and all downs; transformers 5 holds gates and ups in
one parameter, so these two are decided about together, by the sensitivity of both.

MLX has groups of 32, 64 and 128 weights that must divide a row; whole rows are asked as groups of 64. Where a group does not divide the width of the
feed-forward part, that part is widened by zeros, which computes the same: the logits are compared with those of transformers before anything else.
(mlx-lm does not read the `rope_parameters` of transformers 5 and would compute with a base of its own, so it is told the base.)

Counted for one budget: a forward pass of the original, and a forward and a backward pass of the low-bit model, for each calibration sequence.
"""

from math import inf

import mlx.core as mx
import numpy as np
import torch
from mlx import nn
from mlx_lm.quant.dynamic_quant import estimate_sensitivities
from mlx_lm.utils import load_model
from question import Answer, Clock, Layers, Question, ask, load, write

DEFAULT_GROUP, TOLERANCE = 64, 1e-2
EXPERTS, MLX_EXPERTS, HALVES = ".mlp.experts.", ".block_sparse_moe.switch_mlp.", ("gate_proj", "up_proj")
Sensitivities = dict[str, float]


class KeptEmbedding(nn.Module):
    """An embedding that offers no `to_quantized`."""

    def __init__(self, weight: mx.array) -> None:
        super().__init__()
        self.weight = weight

    def __call__(self, ids: mx.array) -> mx.array:
        return self.weight[ids]

    def as_linear(self, hidden: mx.array) -> mx.array:
        """Project hidden states onto the vocabulary."""
        return hidden @ self.weight.T


class KeptLinear(nn.Module):
    """A linear layer that offers no `to_quantized`."""

    def __init__(self, weight: mx.array) -> None:
        super().__init__()
        self.weight = weight

    def __call__(self, hidden: mx.array) -> mx.array:
        return hidden @ self.weight.T


def prepare(question: Question, group: int) -> nn.Module:
    """mlx-lm's model in float32, its layers divisible by `group`, with nothing to quantize but the layers that are decided about."""
    reference = load(question)
    base = {"rope_theta": reference.config.rope_parameters["rope_theta"]}
    model, _ = load_model(question.folder, model_config=base)
    model.set_dtype(mx.float32)
    model.model.embed_tokens = KeptEmbedding(model.model.embed_tokens.weight)
    if "lm_head" in model:
        model.lm_head = KeptLinear(model.lm_head.weight)
    for layer in model.layers:
        if "block_sparse_moe" in layer:
            layer.block_sparse_moe.gate = KeptLinear(layer.block_sparse_moe.gate.weight)
    for name, module in model.named_modules():
        pad(name, module, group)
    _require_same(question, model, reference)
    return model


def pad(name: str, module: nn.Module, group: int) -> None:
    """Widen one linear layer of a feed-forward part (..., n_rows, n_columns) by zeros to a multiple of `group`."""
    part = name.rpartition(".")[2]
    axis = {"gate_proj": -2, "up_proj": -2, "down_proj": -1}.get(part)
    if axis is not None:
        widths = [(0, 0)] * module.weight.ndim
        widths[axis] = (0, -module.weight.shape[axis] % group)
        module.weight = mx.pad(module.weight, widths)


def _require_same(question: Question, model: nn.Module, reference: torch.nn.Module) -> None:
    ids = question.tokens[:1]
    with torch.no_grad():
        expected = reference(torch.from_numpy(ids)).logits.numpy()
    worst = np.abs(np.array(model(mx.array(ids))) - expected).max()
    if worst > TOLERANCE:
        raise SystemExit(f"mlx-lm computes another model than transformers: logits differ by up to {worst:.3g}")


def sensitivities(question: Question, model: nn.Module, pair: tuple[int, int], group: int) -> Sensitivities:
    """mlx-lm's sensitivities for a pair of widths, for a weight each, by the names of transformers."""
    found = {
        name.replace(MLX_EXPERTS, EXPERTS): value
        for name, value in estimate_sensitivities(model, mx.array(question.tokens), pair[0], group, pair[1], group)
    }
    halves = [[name.replace("gate_up_proj", part) for part in HALVES] if name.endswith("gate_up_proj") else [name] for name in question.shapes]
    return {name: sum(found[half] for half in parts) / len(parts) for name, parts in zip(question.shapes, halves, strict=True)}


def solve(question: Question, scores: Sensitivities, pair: tuple[int, int], budget: float) -> Layers:
    """The map of the smallest threshold that keeps the budget."""
    low, high = pair
    maps = ({name: high if scores[name] > threshold else low for name in question.shapes} for threshold in (-inf, *sorted(scores.values())))
    return next(layers for layers in maps if question.stored(layers) <= budget)


def main() -> None:
    """Run the benchmark from the command line."""
    question = ask(__doc__)
    mx.random.seed(question.seed)
    group = question.group or DEFAULT_GROUP
    model = prepare(question, group)
    clock = Clock()
    pairs = {budget: pair for budget in question.budgets if (pair := question.neighbours(budget))}
    scores = {pair: sensitivities(question, model, pair, group) for pair in dict.fromkeys(pairs.values())}
    maps = {budget: solve(question, scores[pair], pair, budget) for budget, pair in pairs.items()}
    notes = [f"groups of {group} instead of the row"] if not question.group else []
    time = {unit: seconds / max(1, len(scores)) for unit, seconds in clock.read().items()}
    write(question, "mlx-lm dynamic", "mlx-lm", Answer(maps, 2 * question.tokens.size, question.tokens.size, time, notes))


if __name__ == "__main__":
    main()
