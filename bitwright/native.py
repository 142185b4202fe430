"""Native checkpoints in transformers: `import bitwright.native` once, and plain `from_pretrained` loads what `--target native` wrote.

    import bitwright.native
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("model")

The weights stay packed in memory and are expanded a part of a layer, or an expert, at a time. `import bitwright` alone loads neither torch nor
transformers, so it cannot do this.
"""

from bitwright.engines import NativeConfig, NativeQuantizer

__all__ = ["NativeConfig", "NativeQuantizer"]
