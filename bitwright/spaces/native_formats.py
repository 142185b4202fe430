"""Formats of native checkpoints."""

from bitwright.spaces.format import INTEGER_FORMATS, SIGN_FORMATS, Format
from bitwright.spaces.rank_format import RANK_FORMATS
from bitwright.spaces.sparse_format import SPARSE_FORMATS

#: Floats and integers in groups; and where a menu names them, signs, fewer weights, and pairs of low rank.
NATIVE_FORMATS: tuple[Format, ...] = (*INTEGER_FORMATS, *SIGN_FORMATS, *SPARSE_FORMATS, *RANK_FORMATS)
