"""Race the published methods that allocate sparsity and rank, at equal bytes, among the formats of `sparsity.py`.

    uniform      the largest uniform allocation that fits
    bits         the exact optimum of the table within bits, which all others are over
    everything   the same within everything
    <method>     those of `bitwright methods` that --methods names, each with at most --evaluations; SPDY's coefficients are for rows of any formats

    python benchmarks/sparsity_race.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER --budgets 2,2.5,3 --evaluations 60

Each lane's choice, the best that it measured in full on the text that it searches on, is measured on held-out text: nats per token, × over `bits`,
and the paired difference from it. Everything is kept in the folder and not repeated; that of `sparsity.py` serves if its settings are the same.
"""

from experts import Lab
from native_run import budget_of, code_bits
from sparsity import KINDS, against, opened_lab, optimum, parser_of_reductions

from bitwright.pipeline.pricing.run_space import uniforms
from bitwright.spaces import Choice

METHODS = "pq-index,acip,obc-dp,evopress,evopress-sparsity,spdy,auto"


def lanes(lab: Lab, budget_bits: int, methods: list[str], n_evaluations: int) -> dict[str, Choice]:
    """The choices of all lanes that have one."""
    size = lab.run.space.total_bits
    fitting = [choice for choice in uniforms(lab.run).values() if size(choice) <= budget_bits]
    found = {"uniform": max(fitting, key=size)} if fitting else {}
    optima = {"bits": optimum(lab, KINDS[:1], budget_bits), "everything": optimum(lab, KINDS, budget_bits)}
    found |= {name: choice for name, choice in optima.items() if choice is not None}
    searched = {name: lab.best(name, budget_bits, n_evaluations) for name in methods}
    return found | {name: choice for name, choice in searched.items() if len(choice)}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of_reductions(__doc__, budgets="2,2.5,3", evaluations=60)
    parser.add_argument("--methods", default=METHODS, help="default: %(default)s")
    args = parser.parse_args()
    lab = opened_lab(args)
    space = lab.run.space
    print(f"{args.model}, {args.codec}, at most {args.evaluations} evaluations; nats/token on held-out text")
    for bits in code_bits(args):
        budget = budget_of(space, bits)
        print(f"\n{bits:g} bits, {budget // 8:,} bytes", flush=True)
        measured = {name: lab.held_out(choice) for name, choice in lanes(lab, budget, args.methods.split(","), args.evaluations).items()}
        for name, found in measured.items():
            told = against(found.by_sequence[:, 0], measured["bits"].by_sequence[:, 0]) if "bits" in measured else ""
            print(f"  {name:<18}{found.nats_per_token:>9.4f} ± {found.standard_error:.4f}{told}", flush=True)


if __name__ == "__main__":
    main()
