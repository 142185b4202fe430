"""A mix of formats, named role by role, built for vLLM and run in it: which kernels it has on this machine, and whether they compute what torch does.

    bitwright fit MODEL --budget 190MB --target vllm --formats W8A8_ROW,BF16 --out out/         # any plan for vllm serves
    python benchmarks/vllm_mixes.py out/plan.json TEXT --out mix/ --engine-python vllm/bin/python ffn_gate=W4_G32 ffn_up=W4_G32

Roles that are not named stay in BF16. The contexts are the first 768 tokens of TEXT in 16 pieces.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

import bitwright as bw
from bitwright.compress import load, open_source
from bitwright.engines import N_CONTEXTS, as_held, check, engine_named, model_as_held, prefixes
from bitwright.engines.by_name import container_of
from bitwright.engines.compressed_tensors.target import VLLM
from bitwright.progress import Silent
from bitwright.spaces import Plan, discover, role_of

N_SEQUENCES, LENGTH = 8, 96
KEPT = "BF16"


def mixed(plan: Plan, roles: dict[str, str], scratch: Path) -> Plan:
    """The plan with its tensors in the formats of their roles."""
    source = as_held(open_source(plan.model.source, engine_named(plan.target).view), VLLM)
    tensors = {tensor.name: tensor for unit in discover(source.tensors) for tensor in unit.tensors if tensor.name in plan.formats}
    if unknown := roles.keys() - {role_of(tensor) for tensor in tensors.values()}:
        sys.exit(f"a role must be one of the plan's tensors'; not so: {', '.join(sorted(unknown))}")
    formats = {name: roles.get(role_of(tensor), KEPT) for name, tensor in tensors.items()}
    fixed = container_of(VLLM, plan.model.source).fixed_bytes(source, tensors, scratch)
    size_bytes = fixed + sum(VLLM.stored_bytes(tensor.shape, VLLM.format(formats[name])) for name, tensor in tensors.items())
    return plan.model_copy(update={"formats": formats, "size_bytes": size_bytes})


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("roles", nargs="+", metavar="ROLE=FORMAT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine-python", required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    plan = mixed(bw.read_plan(asked.plan), dict(pair.split("=") for pair in asked.roles), asked.out)
    bw.build(plan, asked.out / "model")
    model = model_as_held(load(plan.model.source, view=engine_named(plan.target).view), VLLM)
    ids = model.tokenizer(asked.text.read_text(encoding="utf-8")[: 80 * N_SEQUENCES * LENGTH])["input_ids"][: N_SEQUENCES * LENGTH]
    contexts = prefixes(np.array(ids).reshape(N_SEQUENCES, LENGTH), N_CONTEXTS)
    prompt = "The capital of France is"
    found = check(model, plan, asked.out / "model", contexts=contexts, prompt=prompt, engine_python=asked.engine_python, progress=Silent())
    console = Console(width=120)
    console.print(bw.report.check_table(found.rows))
    console.print(f"{found.engine} writes: {prompt}{found.written}", markup=False)
    for line in found.broken:
        console.print(line, markup=False)


if __name__ == "__main__":
    main()
