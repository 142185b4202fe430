"""Run as a program, never imported by the package: what a checkpoint predicts in vLLM.

vLLM pins a torch of its own, so it lives in an environment of its own, which need not have Bitwright.

    PYTHON_OF_VLLM vllm_worker.py asked.json answer.npz

`asked.json` holds `path` (a folder), `dtype`, `contexts` and `prompt` (token ids) and `n_tokens` to write after the prompt; `answer.npz` gets the
`log_probabilities` `(n_contexts, n_vocabulary)` of the tokens after the contexts, the tokens `written`, and the `version` of vLLM.
"""

import json
import sys
from pathlib import Path

import numpy as np
import vllm
from vllm.platforms import current_platform

_ROOM = 64  # tokens of a sequence beyond those that are asked for


def main(asked: Path, answer: Path) -> None:
    """Load, predict, write, and keep."""
    wanted = json.loads(asked.read_text(encoding="utf-8"))
    contexts, prompt, n_tokens = wanted["contexts"], wanted["prompt"], wanted["n_tokens"]
    length = max(len(context) for context in [*contexts, prompt]) + n_tokens + _ROOM
    engine = vllm.LLM(
        wanted["path"],
        dtype=wanted["dtype"] if current_platform.is_cpu() else "auto",  # kernels for GPUs take 16 bits alone
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=length,
        max_num_seqs=4,
        max_logprobs=-1,
        seed=0,
    )
    everything = vllm.SamplingParams(max_tokens=1, temperature=0.0, logprobs=-1, detokenize=False)
    found = engine.generate([{"prompt_token_ids": context} for context in contexts], everything, use_tqdm=False)
    greedy = vllm.SamplingParams(max_tokens=n_tokens, temperature=0.0, detokenize=False)
    written = engine.generate([{"prompt_token_ids": prompt}], greedy, use_tqdm=False)[0].outputs[0].token_ids
    rows = np.stack([_row(each.outputs[0].logprobs[0]) for each in found])
    np.savez(answer, log_probabilities=rows, written=np.array(written, dtype=np.int64), version=np.array(vllm.__version__))


def _row(by_token: dict) -> np.ndarray:  # type: ignore[type-arg]
    """Log-probabilities `(n_vocabulary,)`."""
    row = np.full(max(by_token) + 1, -np.inf)
    row[list(by_token)] = [entry.logprob for entry in by_token.values()]
    return row


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
