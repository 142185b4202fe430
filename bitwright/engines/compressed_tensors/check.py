"""Load a checkpoint of packed layers as its engine does, and compare it with what was promised.

transformers computes with the plan's own weights, so it must give the distributions that torch gives with them. Where experts are packed, the model
must be loaded in bfloat16, and is held to torch with every weight as it is loaded: what rounding them does shows in its divergence from the original,
and is no excuse for a difference. vLLM is run where a
Python has it. Every layer is unpacked by the package that vLLM uses in any case, and without vLLM the promise is held to those weights.

Where the inputs of layers are rounded, sums in another order turn some of the roundings, and each turns others behind it. How far that goes is
measured in torch, with steps that differ by as much as such sums do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import IN_MEMORY, Model, RoundsInputs, Weights, applied, rounded_as, router_tensors
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Floats, mean_divergence, types_unlike
from bitwright.engines.checkpoint_check import CheckpointCheck
from bitwright.engines.checkpoint_container import CheckpointContainer
from bitwright.engines.checkpoint_source import CheckpointSource, written_weights
from bitwright.engines.compressed_tensors.reload import load_packed, loaded_types, unpack_layer_by_layer
from bitwright.engines.compressed_tensors.vllm import in_vllm
from bitwright.engines.greedy_generation import continued
from bitwright.engines.shortened_source import ShortenedSource
from bitwright.objectives import next_token_log_probabilities
from bitwright.spaces import Format, PackedFormat

_EXACT, _ROUNDED = 1e-4, 5e-3  # nats between two computations with the same weights, and with one of them in bfloat16
_FLOAT32, _BFLOAT16 = 1e-6, 2.0**-9  # relative errors of sums, by which roundings of inputs are turned
_TURNED = 2.0  # how much more of what that does an engine may show
_GENERATED_TOKENS = 24


@dataclass(frozen=True, eq=False)
class _Found:
    """Log-probabilities `(n_contexts, n_vocabulary)` of an engine and of torch with the weights that it loads; and a text."""

    engine: str
    log_probabilities: Floats
    in_torch: Floats
    allowed_gap: float
    text: str
    remark: str = ""


@dataclass(frozen=True, eq=False)
class _Asked:
    """Request to an engine: the contexts and the prompt, in floats of type `dtype`; `turned` is how far roundings that turn may carry it, in nats.

    `planned` are the log-probabilities `(n_contexts, n_vocabulary)` that torch gives with the plan's `weights`.
    """

    contexts: list[NDArray[np.int64]]
    prompt: str
    dtype: str
    turned: float
    weights: Weights
    planned: Floats


#: runs an engine on a checkpoint that was read back
_Run = Callable[[Model, Path, CheckpointSource, _Asked], _Found]


def check_in_transformers(container: CheckpointContainer, request: CheckRequest) -> CheckpointCheck:
    """Compare a folder that `container` wrote with its plan in transformers.

    Raises:
        ModelError: the checkpoint cannot be read, by us or by transformers.
    """
    return _checked(container, request, narrow=False, run=_in_transformers)


def check_in_vllm(container: CheckpointContainer, request: CheckRequest, *, python: str) -> CheckpointCheck:
    """Check the checkpoint in the vLLM of `python`; if that is empty, with the weights of the package's unpacker, which vLLM uses.

    vLLM's kernels for packed integers take bfloat16 alone.

    Raises:
        ModelError: the checkpoint cannot be read, by us or by vLLM.
        BrokenPromiseError: a layer unpacks to other weights than were written.
    """
    return _checked(container, request, narrow=True, run=partial(_in_vllm if python else _unpacked, python=python))


def _checked(container: CheckpointContainer, request: CheckRequest, *, narrow: bool, run: _Run) -> CheckpointCheck:
    """Compare with the engine that `run` runs; `narrow`: it computes with packed integers in bfloat16."""
    model, plan, path, contexts, prompt = request.model, request.plan, request.path, request.contexts, request.prompt
    kept = None if plan.structure is None else ShortenedSource(model.source, plan.structure.kept)
    container = container if plan.structure is None else container.keeping(plan.structure.kept)
    formats = kept.renamed(plan.formats) if kept else plan.formats
    built = container.written(path)
    with request.progress.stage("Checking the checkpoint", 3 * len(contexts)) as advance:
        original = next_token_log_probabilities(model, contexts)
        advance(len(contexts))
        weights = written_weights(built, (*formats, *router_tensors(model).values()))
        weights = kept.widened_weights(weights) if kept else weights
        with applied(model, weights):
            planned = next_token_log_probabilities(model, contexts)
        advance(len(contexts))
        narrow = narrow and any(isinstance(form, PackedFormat) for form in built.forms.values())
        turned = _turned(model, weights, planned, contexts, by=_BFLOAT16 if narrow else _FLOAT32)
        found = run(model, path, built, _Asked(contexts, prompt, "bfloat16" if narrow else "float32", turned, weights, planned))
        advance(len(contexts))
    return CheckpointCheck(
        engine_name=found.engine,
        size_promised=plan.size_bytes,
        size_found=container.size_bytes(path),
        wrong_types=types_unlike(formats, built),
        in_torch=mean_divergence(original, planned),
        in_engine=mean_divergence(original, found.log_probabilities),
        engine_gap=mean_divergence(found.in_torch, found.log_probabilities),
        allowed_gap=found.allowed_gap,
        prompt=prompt,
        text=found.text,
        remark=found.remark,
    )


def _turned(model: Model, weights: Weights, planned: Floats, contexts: list[NDArray[np.int64]], *, by: float) -> float:
    rounding = {name: given for name, given in weights.items() if isinstance(given, RoundsInputs)}
    if not rounding:
        return 0.0
    forms = {name: replace(given.form, input_steps=(1 + by) * given.form.input_steps) for name, given in rounding.items()}
    with applied(model, {**weights, **{name: replace(given, form=forms[name]) for name, given in rounding.items()}}):
        return _TURNED * mean_divergence(planned, next_token_log_probabilities(model, contexts)).nats_per_token


def _unpacked(model: Model, path: Path, built: CheckpointSource, asked: _Asked, *, python: str) -> _Found:  # noqa: ARG001
    unpack_layer_by_layer(path, built)  # so the engine's weights are the plan's
    with applied(model, asked.weights):
        text = continued(model, asked.prompt).text
    return _Found("compressed-tensors", asked.planned, asked.planned, _EXACT, text, remark="no: only unpacked; --engine-python runs it")


def _in_vllm(model: Model, path: Path, built: CheckpointSource, asked: _Asked, *, python: str) -> _Found:
    unpack_layer_by_layer(path, built)
    prompt = [int(token) for token in model.tokenizer(asked.prompt)["input_ids"]]
    contexts = [context.tolist() for context in asked.contexts]
    answer = in_vllm(python, path, dtype=asked.dtype, contexts=contexts, prompt=prompt, n_tokens=_GENERATED_TOKENS)
    text = str(model.tokenizer.decode(answer.written.tolist()))
    allowed = asked.turned + (_EXACT if asked.dtype == "float32" else _ROUNDED)
    return _Found(f"vllm {answer.version}", answer.log_probabilities, asked.planned, allowed, text)


def _in_transformers(model: Model, path: Path, built: CheckpointSource, asked: _Asked) -> _Found:
    rounded = any(
        isinstance(built.forms[slot.name], Format) and slot.piece.expert >= 0
        for checkpoint_entries in built.checkpoint_entries.values()
        for slot in checkpoint_entries
    )
    module = load_packed(path, "auto" if rounded else torch.float32)
    with applied(model, asked.weights), rounded_as(model, loaded_types(module, model)):
        in_torch = next_token_log_probabilities(model, asked.contexts) if rounded else asked.planned
    torch.nn.Module.float(module)
    loaded = replace(model, module=module, residence=IN_MEMORY)
    found = next_token_log_probabilities(loaded, asked.contexts)
    return _Found("transformers", found, in_torch, asked.turned + _EXACT, continued(loaded, asked.prompt).text)
