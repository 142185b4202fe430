"""The targets: what each engine of a named version loads, rule by rule, with the place where the rule was read or seen.

A profile is a value, and the space of a model is built from it. What was read in an engine's source and what was really run is told apart in
`docs/targets.md`.
"""

from dataclasses import replace

from bitwright.errors import UserError
from bitwright.spaces.byte_format import ByteFormat, byte_formats
from bitwright.spaces.cut import into_channels, into_experts
from bitwright.spaces.format import DROP, GGML_FORMATS, INTEGER_FORMATS, PRUNE, Format
from bitwright.spaces.packed_format import PACKED_FORMATS, PackedFormat
from bitwright.spaces.rules import Fused, Rule
from bitwright.spaces.target import Target
from bitwright.spaces.tie import by_channels, by_expert
from bitwright.spaces.unit import Unit

_QKV, _GATE_UP = ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up")
_SHARED = ("ffn_gate_shexp", "ffn_up_shexp")
_EXPERTS = "_exps"
_LOADER = "transformers 5.23.0, integrations/compressed_tensors.py"
_VLLM = "vllm 0.32.0, vllm/model_executor/layers/quantization/compressed_tensors"


def by_all_experts(unit: Unit) -> str:
    """The routed experts of the whole model."""
    return "experts" if unit.kind.endswith(_EXPERTS) else unit.name


def by_block_of_experts(unit: Unit) -> str:
    """The routed experts of a block."""
    return f"blk.{unit.layer}.experts" if unit.kind.endswith(_EXPERTS) else unit.name


def by_fused_projection(unit: Unit) -> str:
    """q, k and v of a block, and gate and up of a block or of its shared expert."""
    groups = {"attn_qkv": _QKV, "ffn_gate_up": _GATE_UP, "ffn_gate_up_shexp": _SHARED}
    return next((f"blk.{unit.layer}.{name}" for name, kinds in groups.items() if unit.kind in kinds), unit.name)


def packed(form: Format) -> bool:
    """Whether the format is another than floats of 16 or 32 bits."""
    return isinstance(form, PackedFormat | ByteFormat)


def rounds_inputs(form: Format) -> bool:
    """Whether what goes into the layer is rounded too."""
    return isinstance(form, ByteFormat) and form.input_steps > 0


def asymmetric(form: Format) -> bool:
    """Whether the format stores zero points."""
    return isinstance(form, PackedFormat) and form.zero_points


_FLOATS, _INTEGERS = PACKED_FORMATS[:3], PACKED_FORMATS[3:]
_SYMMETRIC = tuple(form for form in _INTEGERS if not asymmetric(form))
_FLOAT_EMBEDDING = Rule(
    "embedding",
    "token_embd",
    packed,
    "the token embedding stays a float tensor, since only linear layers are unpacked",
    "compressed-tensors 0.20.0, compressors/pack_quantized, can_compress",
)

LLAMA_CPP = Target("llama.cpp", "b11549", GGML_FORMATS, alignment=32, container="gguf")
#: No engine's: packed integers as the papers of the field use them, to compare methods and for small models whose rows no block of GGUF divides.
INTEGERS = Target("integers", "1", INTEGER_FORMATS, alignment=1)
#: A checkpoint of packed integers with each expert in a format of its own, which transformers loads once `bitwright.native` is imported.
NATIVE = Target(
    "native",
    "1",
    (*INTEGER_FORMATS, DROP),
    alignment=1,
    rules=(
        Rule(
            "only experts",
            f"(?!.*{_EXPERTS}).*",
            lambda form: form == DROP,
            "only routed experts can be dropped",
            "a router can do without an expert, and nothing can do without another matrix",
        ),
    ),
    fused=(Fused("expert", by_expert, "the matrices of an expert are one decision", "a choice of Bitwright"),),
    cut=into_experts,
    container="native",
)
#: The same with each matrix of an expert decided about alone, so that none can be dropped.
NATIVE_MATRICES = replace(NATIVE, name="native-matrices", formats=INTEGER_FORMATS, rules=(), fused=())
#: The same with the channels of every expert, and of every other feed-forward part, in up to four parts that are decisions of their own.
NATIVE_CHANNELS = replace(
    NATIVE,
    name="native-channels",
    formats=(*INTEGER_FORMATS, PRUNE),
    rules=(
        Rule(
            "only channels",
            "(?!ffn_(gate|up|down)).*",
            lambda form: form == PRUNE,
            "only channels of a feed-forward part can be pruned",
            "what a channel adds to the sum of all can be left out, and nothing can do without another matrix",
        ),
    ),
    fused=(
        Fused("channels", by_channels, "rows of gate and up and columns of down are one decision for the same channels", "a choice of Bitwright"),
    ),
    cut=into_channels,
)
#: The same with gate, up and down of a part decided about alone, so that none can be pruned.
NATIVE_CHANNEL_MATRICES = replace(NATIVE_CHANNELS, name="native-channel-matrices", formats=INTEGER_FORMATS, rules=(), fused=())
#: A compressed-tensors checkpoint that plain `from_pretrained` loads. Formats with zero points are left out: see `docs/targets.md`.
TRANSFORMERS = Target(
    "transformers",
    "5.23.0",
    (*_FLOATS, *byte_formats(127.5), *_SYMMETRIC),  # compressed-tensors 0.20.0, quantization/utils/helpers.py, calculate_qparams: 255 / 2 steps
    alignment=1,
    rules=(
        _FLOAT_EMBEDDING,
        Rule(
            "packed experts",
            f".*{_EXPERTS}",
            lambda form: not packed(form),
            "routed experts are packed wherever anything is: the loader finds no floats for them",
            f"{_LOADER}, CompressedTensorsDequantize",
        ),
        Rule(
            "inputs of experts",
            f".*{_EXPERTS}",
            rounds_inputs,
            "what goes into a routed expert is not rounded: the loader leaves it as it is",
            f"{_LOADER}, CompressedTensorsDequantize",
        ),
    ),
    fused=(
        Fused(
            "experts",
            by_all_experts,
            "all routed experts of a model are in one format, or they load as garbage without an error",
            f"{_LOADER}, get_experts_scheme",
        ),
    ),
    container="compressed-tensors",
)
VLLM = Target(
    "vllm",
    "0.32.0",
    (*_FLOATS, *byte_formats(127), *_INTEGERS),  # layers/quantization/utils/int8_utils.py, and its kernel for processors was run: 127 steps
    alignment=1,
    rules=(
        Rule(
            "embedding",
            "token_embd",
            packed,
            "the token embedding stays a float tensor: a packed one is read, but not where the head is tied to it",
            f"{_VLLM}/compressed_tensors.py, get_quant_method",
        ),
        Rule(
            "symmetric experts",
            f".*{_EXPERTS}",
            asymmetric,
            "routed experts have no zero points",
            f"{_VLLM}/compressed_tensors_moe/compressed_tensors_moe_wna16.py",
        ),
        Rule(
            "inputs of experts",
            f".*{_EXPERTS}",
            rounds_inputs,
            "what goes into a routed expert is not rounded when it is measured, so no engine may do it",
            "a choice of Bitwright",
        ),
    ),
    fused=(
        Fused("projections", by_fused_projection, "layers that run as one matrix are in one format", f"{_VLLM}/utils.py, find_matched_target"),
        Fused(
            "experts",
            by_block_of_experts,
            "the routed experts of a block are in one format",
            f"{_VLLM}/compressed_tensors_moe/compressed_tensors_moe.py",
        ),
    ),
    container="compressed-tensors",
)
_NATIVE = NATIVE, NATIVE_MATRICES, NATIVE_CHANNELS, NATIVE_CHANNEL_MATRICES
TARGETS = {target.name: target for target in (LLAMA_CPP, TRANSFORMERS, VLLM, INTEGERS, *_NATIVE)}


def engine(name: str, version: str) -> Target:
    """The profile of an engine; of the version it was read from, or of any when `version` is empty.

    Raises:
        UserError: there is no such engine, or no profile of that version.
    """
    if name not in TARGETS:
        raise UserError(f"An engine must have a profile; '{name}' has none: choose from {', '.join(TARGETS)}.")
    if version not in ("", TARGETS[name].version):
        raise UserError(
            f"An engine's rules hold for the version they were read from; {name} {version} has no profile: use {name} {TARGETS[name].version}, or "
            "leave the version out to go by that one's rules."
        )
    return TARGETS[name]
