"""The target llama.cpp."""

from bitwright.spaces import GGML_FORMATS, Target

LLAMA_CPP = Target("llama.cpp", "b11549", GGML_FORMATS, alignment=32, container="gguf")
