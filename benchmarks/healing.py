"""Measure what healing gains for which tokens: the divergence of plans on held-out text after none, some and many tokens of training.

At each budget two plans of `sparsity.py`'s menu are healed, the table's optimum within bits and that within everything. Scales, minima and pairs are
trained on the calibration text (`--step heal`), and the bytes that would be written are measured. × is over the same plan without healing.

    python benchmarks/healing.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER --codec gptq+clip+refit --tokens 4096,16384,65536
"""

import time
from collections.abc import Mapping

import numpy as np
from native_run import budget_of, code_bits
from numpy.typing import NDArray
from sparsity import KINDS, both_references, formats_of, opened_lab, optimum, parser_of_reductions

from bitwright.compress import TrainableMatrix, matrix_shape, planned_weights, swapping
from bitwright.objectives import KullbackLeibler, standard_error
from bitwright.pipeline.finishing.healing import Training, healed
from bitwright.progress import Silent
from bitwright.spaces import Format


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_reductions(__doc__, budgets="2,3", evaluations=0)
    parser.add_argument("--tokens", default="4096,16384,65536", help="tokens to train on (default: %(default)s)")
    parser.add_argument(
        "--step", type=float, default=Training(0, 0).step, help="first step, relative to the numbers of a matrix (default: %(default)s)"
    )
    args = parser.parse_args()
    lab = opened_lab(args)
    bench, space = lab.bench, lab.run.space
    calibration, held_out = both_references(lab)
    decode, shapes = bench.levels.codec.decode, {tensor.name: matrix_shape(tensor) for tensor in bench.model.tensors}

    def measured(wanted: Mapping[str, Format], matrices: Mapping[str, TrainableMatrix]) -> NDArray[np.float64]:
        """Divergence of each held-out sequence with the trained matrices, as they would be stored."""
        trained = {name: lambda name=name, m=m: decode(m.packed(), wanted[name], shapes[name]) for name, m in matrices.items()}
        with swapping(bench.model) as swapper:
            swapper.load(planned_weights(bench.model, bench.levels, formats=wanted) | trained)
            return held_out.measure(bench.model, [KullbackLeibler()])[:, 0]

    print(f"{args.model}, {args.codec}, trained on {calibration.tokens.n_tokens:,} different tokens; nats/token on held-out text")
    for bits in code_bits(args):
        budget = budget_of(space, bits)
        for name, kinds in (("bits", KINDS[:1]), ("all", KINDS)):
            choice = optimum(lab, kinds, budget)
            if choice is None:
                continue
            wanted = formats_of(lab, choice)
            base = measured(wanted, {})
            print(f"{bits:g} bits, {name:<6}{base.mean():>9.4f} ± {standard_error(base):.4f}", flush=True)
            for n_tokens in (int(n) for n in args.tokens.split(",")):
                started = time.perf_counter()
                training = Training(n_tokens, args.seed, args.step)
                matrices = healed(bench.model, bench.levels, wanted, calibration, training, progress=Silent())
                seconds = time.perf_counter() - started
                found = measured(wanted, matrices)
                change = found - base
                print(f"  {n_tokens:>8,} tokens{found.mean():>9.4f}  ×{found.mean() / base.mean():.3f}  {change.mean():+.4f} ± "
                      f"{standard_error(change):.4f}  {seconds:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
