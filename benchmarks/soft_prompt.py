"""Measure what a soft prompt gains a compressed model (Compress, then Prompt; Xu et al., ICML 2024), beside `heal` for as many tokens.

Embeddings of some tokens before every text are trained, by Adam on the divergence from the original at every position of the calibration text, with
the weights as they are packed. They begin as embeddings of tokens of that text. Held-out text is read after them; × is over no prompt. The plan is
the table's optimum within bits. A prompt takes its numbers in 16 bits, and a place in every context and cache.

    python benchmarks/soft_prompt.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER --budgets 2.5 --prompts 16,64 --tokens 8192
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from native_run import budget_of, code_bits
from numpy.typing import NDArray
from sparsity import KINDS, against, both_references, formats_of, opened_lab, optimum, parser_of_reductions
from torch import Tensor

from bitwright.compress import Model, planned_weights, swapping
from bitwright.objectives import Reference, standard_error

AT_ONCE = 4  # sequences of a step


@dataclass(frozen=True)
class Training:
    """Tokens to read, and the first step of Adam over the root mean square of all embeddings."""

    n_tokens: int
    step: float


def divergences(model: Model, reference: Reference, sequences: NDArray[np.int64], prompt: Tensor) -> Tensor:
    """Mean divergence of each sequence after the prompt `(n_prompt, n_channels)`: `(n_sequences,)`."""
    text = model.module.get_input_embeddings()(torch.from_numpy(reference.tokens.ids[sequences]))
    inputs = torch.cat([prompt.to(text.dtype).expand(len(sequences), -1, -1), text], dim=1)
    found = model.module(inputs_embeds=inputs, use_cache=False).logits[:, len(prompt) :].float().log_softmax(-1)
    original = torch.cat([reference.sequences(int(i), 1, found.device) for i in sequences])
    return (original.exp() * (original - found)).sum(-1).mean(-1)


def trained(model: Model, reference: Reference, n_prompt: int, training: Training, seed: int) -> Tensor:
    """Train a prompt."""
    ids, rng = reference.tokens.ids, np.random.default_rng(seed)
    table = model.module.get_input_embeddings().weight.detach().float()
    prompt = table[torch.from_numpy(rng.choice(ids.reshape(-1), n_prompt))].clone().requires_grad_()
    optimizer = torch.optim.Adam([prompt], lr=training.step * float(table.square().mean().sqrt()))
    n_steps = max(1, training.n_tokens // (AT_ONCE * ids.shape[1]))
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.5 * (1 + math.cos(math.pi * i / n_steps)))
    for _ in range(n_steps):
        loss = divergences(model, reference, np.sort(rng.choice(len(ids), AT_ONCE, replace=False)), prompt).mean()
        optimizer.zero_grad()
        loss.backward(inputs=[prompt])
        optimizer.step()
        falling.step()
    return prompt.detach()


@torch.no_grad()
def measured(model: Model, reference: Reference, prompt: Tensor) -> NDArray[np.float64]:
    """Divergence of every sequence after a prompt."""
    each = [divergences(model, reference, np.array([i]), prompt) for i in range(len(reference.tokens.ids))]
    return torch.cat(each).double().numpy()


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_reductions(__doc__, budgets="2.5", evaluations=0)
    parser.add_argument("--tokens", type=int, default=8192, help="to train on (default: %(default)s)")
    parser.add_argument("--prompts", default="16,64", help="numbers of tokens (default: %(default)s)")
    parser.add_argument("--steps", default="0.03,0.1", help="first steps, relative to embeddings (default: %(default)s)")
    args = parser.parse_args()
    lab = opened_lab(args)
    bench, space = lab.bench, lab.run.space
    calibration, held_out = both_references(lab)
    bench.model.module.requires_grad_(False)
    width = bench.model.module.get_input_embeddings().weight.shape[1]
    print(f"{args.model}, {args.codec}, {args.tokens:,} tokens of training; nats/token on held-out text")
    for bits in code_bits(args):
        budget = budget_of(space, bits)
        choice = optimum(lab, KINDS[:1], budget)
        if choice is None:
            continue
        wanted = formats_of(lab, choice)
        with swapping(bench.model) as swapper:
            swapper.load(planned_weights(bench.model, bench.levels, formats=wanted))
            base = measured(bench.model, held_out, torch.empty(0, width))
            print(f"{bits:g} bits, no prompt{base.mean():>15.4f} ± {standard_error(base):.4f}", flush=True)
            for n_prompt in (int(n) for n in args.prompts.split(",")):
                for step in (float(step) for step in args.steps.split(",")):
                    prompt = trained(bench.model, calibration, n_prompt, Training(args.tokens, step), args.seed)
                    found = measured(bench.model, held_out, prompt)
                    told = against(found, base)
                    print(f"  {n_prompt:>4} tokens, {2 * prompt.numel():>7,} bytes, step {step:<6g}{found.mean():>9.4f}{told}", flush=True)


if __name__ == "__main__":
    main()
