"""Targets of native checkpoints: what is one decision, and what may be left out."""

from dataclasses import replace

from bitwright.spaces import DROP, NATIVE_FORMATS, PRUNE, Fused, Rule, Target, by_channels, by_expert, into_channels, into_experts, share_format

_EXPERTS = "_exps"
#: A checkpoint of packed integers with each expert in a format of its own, which transformers loads once `bitwright.native` is imported.
NATIVE = Target(
    "native",
    "1",
    (*NATIVE_FORMATS, DROP),
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
    made=share_format,
)
#: The same with each matrix of an expert decided about alone, so that none can be dropped.
NATIVE_MATRICES = replace(NATIVE, name="native-matrices", formats=NATIVE_FORMATS, rules=(), fused=())
#: The same with the channels of every expert, and of every other feed-forward part, in up to four parts that are decisions of their own.
NATIVE_CHANNELS = replace(
    NATIVE,
    name="native-channels",
    formats=(*NATIVE_FORMATS, PRUNE),
    rules=(
        Rule(
            "only channels",
            r"(?!ffn_(gate|up|down)(_exps|_shexp)?$).*",
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
NATIVE_CHANNEL_MATRICES = replace(NATIVE_CHANNELS, name="native-channel-matrices", formats=NATIVE_FORMATS, rules=(), fused=())
TARGETS = NATIVE, NATIVE_MATRICES, NATIVE_CHANNELS, NATIVE_CHANNEL_MATRICES
