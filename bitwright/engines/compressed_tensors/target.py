"""Targets that load checkpoints of compressed-tensors: transformers and vLLM, rule by rule, with the place where each was read or seen."""

from bitwright.spaces import PACKED_FORMATS, ByteFormat, Format, Fused, PackedFormat, Rule, Target, Unit, block_of, byte_formats

_QKV, _GATE_UP = ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up")
_SHARED = ("ffn_gate_shexp", "ffn_up_shexp")
_EXPERTS = "_exps"
_LOADER = "transformers 5.23.0, integrations/compressed_tensors.py"
_VLLM = "vllm 0.32.0, vllm/model_executor/layers/quantization/compressed_tensors"


def by_all_experts(unit: Unit) -> str:
    """Return the routed experts of the whole model."""
    return "experts" if unit.kind.endswith(_EXPERTS) else unit.name


def by_block_of_experts(unit: Unit) -> str:
    """Return the routed experts of a block."""
    return f"{block_of(unit.name)}.experts" if unit.kind.endswith(_EXPERTS) else unit.name


def by_fused_projection(unit: Unit) -> str:
    """q, k and v of a block, and gate and up of a block or of its shared expert."""
    groups = {"attn_qkv": _QKV, "ffn_gate_up": _GATE_UP, "ffn_gate_up_shexp": _SHARED}
    return next((f"{block_of(unit.name)}.{name}" for name, kinds in groups.items() if unit.kind in kinds), unit.name)


def packed(form: Format) -> bool:
    """Return whether the format is other than floats of 16 or 32 bits."""
    return isinstance(form, PackedFormat | ByteFormat)


def rounds_inputs(form: Format) -> bool:
    """Return whether the inputs of the layer are rounded too."""
    return isinstance(form, ByteFormat) and form.input_steps > 0


def renamed(form: Format) -> bool:
    """Return whether nothing of the packed layer is called `weight`."""
    return isinstance(form, PackedFormat)


def asymmetric(form: Format) -> bool:
    """Return whether the format stores zero points."""
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
_INITIALISED = Rule(
    "initialised layers",
    ".*",
    renamed,
    "layers that are initialised while they are loaded are in 8-bit formats, which keep a tensor called weight",
    "transformers 5.23.0, modeling_utils.py, _initialize_missing_keys",
    initialised=True,
)
#: A compressed-tensors checkpoint that plain `from_pretrained` loads. Formats with zero points are left out: see `docs/targets.md`.
TRANSFORMERS = Target(
    "transformers",
    "5.23.0",
    (*_FLOATS, *byte_formats(127.5), *_SYMMETRIC),  # compressed-tensors 0.20.0, quantization/utils/helpers.py, calculate_qparams: 255 / 2 steps
    alignment=1,
    rules=(
        _FLOAT_EMBEDDING,
        _INITIALISED,
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
        _INITIALISED,
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
)
