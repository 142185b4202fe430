"""Load a GGUF file in llama.cpp and compare it with what was promised.

llama.cpp's kernels round activations to 8 bits where torch does not, so the engine's distributions differ from torch's with the very same
weights. How far that goes is measured on the original, and what a built file may show grows with it only as far as healthy models go. A copy of the
original in Q8_0 may round to more than that where the built file, with fewer matrices quantized, does not: what counts is the built file.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import (
    GgufSource,
    Model,
    PackedTensors,
    ReparametrizedSource,
    Source,
    Weights,
    applied,
    extremes,
    integer_codec,
    quantized_cache,
)
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import (
    HEALTHY_NATS,
    Check,
    Floats,
    Mean,
    divergences,
    faults,
    gap_fault,
    mean_divergence,
    steady_context,
    types_unlike,
)
from bitwright.engines.container import Recipe
from bitwright.engines.greedy_generation import Generated
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.joined_source import structured_source
from bitwright.engines.llama_cpp.parity import require_window, tokenizes_alike
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.llama_cpp.split_gguf_container import split_bytes
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.engines.moved_channels import moved_source
from bitwright.errors import ModelError
from bitwright.objectives import is_mixture, next_token_log_probabilities
from bitwright.spaces import CacheTypes, Plan

_GENERATED_TOKENS = 24
_FLOAT_FORMATS = ("F32", "F16", "BF16", "F64")
_GAP_FACTOR, _GAP_FLOOR = 3.0, 0.005  # how much of a healthy gap a built file may show, and nats below which no gap is told from noise
_STANDARD_ERRORS = 2.0
_REROUTED = 1 / 8  # largest share of contexts in which rounding may send a token of a mixture to another expert


@dataclass(frozen=True)
class LlamaCppCheck(Check):
    """Result of checking a GGUF file in llama.cpp.

    `in_torch` and `in_engine` are the divergences of the plan's weights and cache from the original in torch, over the check's contexts; `engine_gap`
    is the divergence of the engine from torch with the plan's own weights, `original_gap` the same with the original's, or where the original is kept
    as floats, with a Q8_0 copy of it, since the engine rounds activations only for quantized weights. The `steady` gaps are those of most contexts of
    some length, see `steady_context`. `typical_gap` is the `engine_gap`, of a mixture without the eighth of contexts that differ most, since rounding
    may send a token to another expert there.
    """

    size_promised: int
    size_found: int
    wrong_types: tuple[str, ...]
    cache: CacheTypes
    in_torch: Mean
    in_engine: Mean
    engine_gap: Mean
    original_gap: Mean
    steady_gap: float
    steady_original_gap: float
    typical_gap: float
    tokenizes_alike: bool
    prompt: str
    generated: Generated
    original_tokens_per_second: float

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return "llama.cpp"

    @property
    def written(self) -> str:
        """Text that llama.cpp wrote after the prompt."""
        return self.generated.text

    @property
    def allowed_gap(self) -> float:
        """Largest `typical_gap` that the engine's own rounding explains: what healthy models show, and what chance adds to the original's mean
        where that is healthy.
        """
        if self.steady_original_gap > HEALTHY_NATS:
            return HEALTHY_NATS
        usual = _GAP_FACTOR * self.original_gap.nats_per_token + _GAP_FLOOR
        return min(usual, HEALTHY_NATS + _STANDARD_ERRORS * self.original_gap.standard_error)

    @property
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Rows of the table: the quantity, as promised, as found."""
        n_types = "all as planned" if not self.wrong_types else f"{len(self.wrong_types)} differ"
        return (
            ("size", f"{self.size_promised:,} bytes", f"{self.size_found:,} bytes"),
            ("tensor types", "as planned", n_types),
            ("KV cache types", str(self.cache), "as planned"),
            ("divergence from the original", f"{self.in_torch} in torch", f"{self.in_engine} in llama.cpp"),
            ("llama.cpp against torch, same weights", f"at most {self.allowed_gap:.4f}", str(self.engine_gap)),
            ("llama.cpp against torch, original", "", str(self.original_gap)),
            ("tokenizer", "as the model's", "alike" if self.tokenizes_alike else "differs"),
            ("decoding", f"{self.original_tokens_per_second:.0f} tokens/s (original)", f"{self.generated.tokens_per_second:.0f} tokens/s"),
        )

    @property
    def broken(self) -> tuple[str, ...]:
        """Sentences about another size, other types, and too large gaps to torch."""
        found = faults((self.size_promised, self.size_found), self.wrong_types, what="file")
        gap = gap_fault(self.engine, self.typical_gap, self.allowed_gap)
        found += gap
        if self.steady_gap > HEALTHY_NATS and self.steady_original_gap > HEALTHY_NATS:
            found.append(
                f"llama.cpp does not compute what torch does with the original either: most contexts of some length are "
                f"{self.steady_original_gap:.4f} nats/token apart; {HEALTHY_NATS} are allowed."
            )
        elif self.steady_gap > HEALTHY_NATS and not gap:
            found.append(
                f"llama.cpp is {self.steady_gap:.4f} nats/token from torch with the same weights in most contexts of some length; {HEALTHY_NATS} are "
                "allowed."
            )
        if not self.tokenizes_alike:
            found.append("llama.cpp tokenizes text differently from the model's own tokenizer.")
        return tuple(found)


def check_in_llama_cpp(request: CheckRequest) -> LlamaCppCheck:
    """Compare a built file with its plan.

    Raises:
        ModelError: the file cannot be read, by us or by llama.cpp, or has a window that llama.cpp does not compute and some context is longer than.
    """
    model, plan, path, contexts, prompt = request.model, request.plan, request.path, request.contexts, request.prompt
    lengths = [len(context) for context in contexts]
    require_window(model, max(lengths))
    built, n_threads = GgufSource(path), torch.get_num_threads()
    kept = None if plan.structure is None else structured_source(model.source, plan.structure.kept)
    moved = moved_source(plan, model.source)
    _require_alike(kept or model.source, built)
    with request.progress.stage("Checking the file in llama.cpp", 2 * len(contexts)) as advance, _reference_file(model) as reference:
        original_in_torch = next_token_log_probabilities(model, contexts)
        with applied(model, kept.widened(built) if kept else _weights_of(model, built, moved)), quantized_cache(model, plan.cache.types):
            planned_in_torch = next_token_log_probabilities(model, contexts)
        reference_in_torch = original_in_torch if _is_of(model, reference) else _in_torch(model, reference, contexts)
        n_vocabulary = original_in_torch.shape[1]
        reference_engine = LlamaCpp(reference, n_vocabulary=n_vocabulary, n_threads=n_threads)
        reference_in_engine = reference_engine.next_tokens(contexts, reference_in_torch, advance)
        reference_speed = reference_engine.generate(prompt, _GENERATED_TOKENS).tokens_per_second
        del reference_engine  # two servers at once would share the cores
        engine = LlamaCpp(path, n_vocabulary=n_vocabulary, n_threads=n_threads, cache=plan.cache.types)
        planned_in_engine = engine.next_tokens(contexts, planned_in_torch, advance)
    planned_gaps = divergences(planned_in_torch, planned_in_engine)
    return LlamaCppCheck(
        size_promised=_promised_bytes(plan, built),
        size_found=sum(part.stat().st_size for part in built.parts),
        wrong_types=types_unlike(kept.renamed(plan.formats) if kept else plan.formats, built),
        cache=plan.cache.types,
        in_torch=mean_divergence(original_in_torch, planned_in_torch),
        in_engine=mean_divergence(original_in_torch, planned_in_engine),
        engine_gap=mean_divergence(planned_in_torch, planned_in_engine),
        original_gap=mean_divergence(reference_in_torch, reference_in_engine),
        steady_gap=_steady(planned_gaps, lengths),
        steady_original_gap=_steady(divergences(reference_in_torch, reference_in_engine), lengths),
        typical_gap=typical(planned_gaps, rerouted=is_mixture(model)),
        tokenizes_alike=tokenizes_alike(model, engine),
        prompt=prompt,
        generated=engine.generate(prompt, _GENERATED_TOKENS),
        original_tokens_per_second=reference_speed,
    )


def _require_alike(planned: Source, built: GgufSource) -> None:
    found = {tensor.name: tensor.shape for tensor in built.tensors}
    unlike = [tensor.name for tensor in planned.tensors if found.get(tensor.name) != tensor.shape]
    if unlike:
        raise ModelError(
            f"A file must hold every tensor of the model it was built from; {built.path} has no {unlike[0]} of the same shape "
            f"({len(unlike)} such): give the file that was built from this plan."
        )


def _promised_bytes(plan: Plan, built: GgufSource) -> int:
    """Return the bytes of a plan's file, with the headers of its parts where it is cut otherwise than planned."""
    if built.split_max_bytes == plan.split_max_bytes:
        return plan.size_bytes
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        planned, found = (split_bytes(built, max_bytes, Path(scratch)) for max_bytes in (plan.split_max_bytes, built.split_max_bytes))
    return plan.size_bytes - planned + found


def _steady(nats: Floats, lengths: list[int]) -> float:
    return float(nats[steady_context(nats, lengths)])


def typical(nats: Floats, *, rerouted: bool) -> float:
    """Return the mean of `nats` `(n_contexts,)`, without the largest where tokens may be `rerouted`."""
    n_left_out = int(_REROUTED * len(nats)) if rerouted else 0
    return float(np.sort(nats)[: len(nats) - n_left_out].mean())


@contextmanager
def _reference_file(model: Model) -> Iterator[Path]:
    """Provide a file on which the engine rounds activations: the original where its matrices are quantized, else a temporary copy of it in Q8_0.

    On a file of floats the engine does not round, so it would show no gap at all.
    """
    source = model.source
    if isinstance(source, GgufSource) and any(tensor.stored not in _FLOAT_FORMATS for tensor in source.tensors):
        yield source.path
        return
    form = LLAMA_CPP.format("Q8_0")
    levels = PackedTensors(Path(), source, integer_codec(), {})
    held = model.pieces.keys() - extremes(model).keys()
    formats = {tensor.name: form.name for tensor in source.tensors if tensor.name in held and form.fits(tensor.shape)}
    with tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        path = Path(folder) / "original.gguf"
        write_gguf(path, Recipe(source, formats), lambda tensor: levels.encode(tensor, form))
        yield path


def _is_of(model: Model, file: Path) -> bool:
    """Return whether the model was loaded from `file`, so that their weights are the same."""
    return isinstance(model.source, GgufSource) and model.source.path == file


def _in_torch(model: Model, file: Path, contexts: list[NDArray[np.int64]]) -> Floats:
    with applied(model, _weights_of(model, GgufSource(file))):
        return next_token_log_probabilities(model, contexts)


def _weights_of(model: Model, file: GgufSource, moved: ReparametrizedSource | None = None) -> Weights:
    """Return the weights of a file for the module, whose channels are where they were before the file's were `moved`."""
    shared = [tensor for tensor in file.tensors if tensor.name in model.pieces]
    if moved is None:
        return {tensor.name: lambda tensor=tensor: file.read(tensor) for tensor in shared}  # type: ignore[misc]
    return {tensor.name: lambda tensor=tensor: moved.restored(tensor.name, file.read(tensor)) for tensor in shared}  # type: ignore[misc]
