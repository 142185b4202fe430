"""Load a native checkpoint as whoever uses it does, weights packed, and compare it with what was promised.

The layers expand to the plan's own weights bit for bit, and all that is left between the two computations in torch is the order in which they add.
"""

from dataclasses import dataclass, replace

import torch

from bitwright.compress import IN_MEMORY, applied, router_tensors
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check, mean_divergence, types_unlike
from bitwright.engines.checkpoint_check import CheckpointCheck
from bitwright.engines.checkpoint_container import CheckpointContainer
from bitwright.engines.checkpoint_source import written_weights
from bitwright.engines.greedy_generation import Generated, continued
from bitwright.engines.native.packed_modules import footprint_bytes
from bitwright.engines.native.reload import load_native, load_tokenizer
from bitwright.engines.shortened_source import ShortenedSource
from bitwright.objectives import next_token_log_probabilities

_ENGINE = "transformers, packed"
_SAMPLE = "The quick brown fox, 42 years old, said: \"Hello, world!\"\n\tIt's naïve — isn't it?"
_ALLOWED_GAP = 1e-4  # nats per token between two orders of addition in float32, with room for a token that changes experts
_ALLOWED_MEMORY = 1.1  # bytes of weights in memory for each on disk


@dataclass(frozen=True)
class NativeCheck(Check):
    """Result of checking a native checkpoint. `memory_bytes` are those of the module's parameters and buffers, loaded in the type of its
    configuration, as whoever uses it does.
    """

    checkpoint: CheckpointCheck
    memory_bytes: int
    tokenizes_alike: bool
    prompt: str
    generated: Generated
    original_tokens_per_second: float

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self.checkpoint.engine

    @property
    def written(self) -> str:
        """Text that the loaded model wrote after the prompt."""
        return self.generated.text

    @property
    def allowed_memory_bytes(self) -> int:
        """Bytes that the weights may take in memory at most."""
        return int(_ALLOWED_MEMORY * self.checkpoint.size_found)

    @property
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Rows of the table: those of the checkpoint, memory, tokenizer and decoding."""
        return (
            *self.checkpoint.rows,
            ("weights in memory", f"at most {self.allowed_memory_bytes:,} bytes", f"{self.memory_bytes:,} bytes"),
            ("tokenizer", "as the model's", "alike" if self.tokenizes_alike else "differs"),
            ("decoding", f"{self.original_tokens_per_second:.0f} tokens/s (original)", f"{self.generated.tokens_per_second:.0f} tokens/s"),
        )

    @property
    def broken(self) -> tuple[str, ...]:
        """Sentences about promises of the checkpoint, memory, tokenizer and decoding that do not hold."""
        found = list(self.checkpoint.broken)
        if self.memory_bytes > self.allowed_memory_bytes:
            found.append(f"The weights take {self.memory_bytes:,} bytes in memory; {self.allowed_memory_bytes:,} are allowed.")
        if not self.tokenizes_alike:
            found.append("The checkpoint's tokenizer cuts text differently from the model's own.")
        return tuple(found)


def check_native(container: CheckpointContainer, request: CheckRequest) -> NativeCheck:
    """Compare a folder that `container` wrote with its plan.

    Raises:
        ModelError: the checkpoint cannot be read, by us or by transformers.
    """
    model, plan, path, contexts, prompt = request.model, request.plan, request.path, request.contexts, request.prompt
    kept = None if plan.structure is None else ShortenedSource(model.source, plan.structure.kept)
    container = container if plan.structure is None else container.keeping(plan.structure.kept)
    formats = kept.renamed(plan.formats) if kept else plan.formats
    built = container.written(path)
    memory_bytes = footprint_bytes(load_native(path, "auto"))
    with request.progress.stage("Checking the checkpoint", 3 * len(contexts)) as advance:
        original = next_token_log_probabilities(model, contexts)
        original_speed = continued(model, prompt).tokens_per_second
        advance(len(contexts))
        weights = written_weights(built, (*formats, *router_tensors(model).values()))
        with applied(model, kept.widened_weights(weights) if kept else weights):
            planned = next_token_log_probabilities(model, contexts)
        advance(len(contexts))
        packed = replace(model, module=torch.nn.Module.to(load_native(path, torch.float32), device=model.device), residence=IN_MEMORY)
        found = next_token_log_probabilities(packed, contexts)
        advance(len(contexts))
    checkpoint = CheckpointCheck(
        engine_name=_ENGINE,
        size_promised=plan.size_bytes,
        size_found=container.size_bytes(path),
        wrong_types=types_unlike(formats, built),
        in_torch=mean_divergence(original, planned),
        in_engine=mean_divergence(original, found),
        engine_gap=mean_divergence(planned, found),
        allowed_gap=_ALLOWED_GAP,
        prompt=prompt,
        text="",
    )
    return NativeCheck(
        checkpoint=checkpoint,
        memory_bytes=memory_bytes,
        tokenizes_alike=model.tokenizer(_SAMPLE)["input_ids"] == load_tokenizer(path)(_SAMPLE)["input_ids"],
        prompt=prompt,
        generated=continued(packed, prompt),
        original_tokens_per_second=original_speed,
    )
