"""Target of llama.cpp, and the tensors of a model as llama.cpp holds them."""

from bitwright.compress import LatentByHead, Source, is_latent
from bitwright.spaces import GGML_FORMATS, Target

LLAMA_CPP = Target("llama.cpp", "b11549", GGML_FORMATS, alignment=32)


def held(source: Source) -> Source:
    """Return the tensors of `source` as llama.cpp holds them: latent attention by head."""
    return LatentByHead(source) if is_latent(source) else source
