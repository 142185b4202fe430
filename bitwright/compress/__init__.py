"""Read models, turn weights into bytes of a format and back, and change the weights of a module."""

from bitwright.compress.codecs.codec import Codec, MadeOnce
from bitwright.compress.codecs.distortion import Distortion, measure_distortion
from bitwright.compress.codecs.expansion import expanded, stored_type
from bitwright.compress.codecs.ggml import GgmlCodec
from bitwright.compress.codecs.imatrix_file import read_imatrix, write_imatrix
from bitwright.compress.codecs.integers import IntegerCodec
from bitwright.compress.codecs.packed_cache import Levels, matrix_shape
from bitwright.compress.codecs.packed_integers import Layer, PackedCodec, layer_bytes, layer_tensors
from bitwright.compress.codecs.pinned_codes import KeptCodes, digest, keep_codes
from bitwright.compress.codecs.pinned_weights import keep_weights, kept_weights
from bitwright.compress.codecs.rounding.by_name import GGML, ROUNDINGS, needs_moments, rounding_named
from bitwright.compress.codecs.rounding.rounding import Rounding
from bitwright.compress.in_place.apply import Weights, applied, dropped, planned_weights
from bitwright.compress.in_place.dropping import Dropped, Rerouting, rerouted, without
from bitwright.compress.in_place.rounded_cache import cached_in
from bitwright.compress.in_place.rounded_inputs import RoundsInputs, with_inputs
from bitwright.compress.in_place.swapping import Stitcher, stitched
from bitwright.compress.models.architectures import ARCHITECTURES, weights_of
from bitwright.compress.models.atomic_files import discard, replacing
from bitwright.compress.models.checkpoints.checkpoint import INDEX, MIXTRAL, WHOLE, shards
from bitwright.compress.models.checkpoints.checkpoint_files import CONFIG, Home, Slot, in_module_order, open_home
from bitwright.compress.models.checkpoints.hugging_face import HuggingFaceSource, rows_in_memory
from bitwright.compress.models.checkpoints.safetensors_file import WIDTHS, Entry, entries, header
from bitwright.compress.models.cut_source import Apart, cut_importance, cut_pieces
from bitwright.compress.models.dimensions import Dimensions, dimensions
from bitwright.compress.models.float_types import FLOAT_TYPES, holds, in_type
from bitwright.compress.models.gguf.reader import _ALIGNMENT_KEY, _FILE_TYPE, ALIGNMENT, GgufSource, _stored_bytes, fingerprint
from bitwright.compress.models.hub import NO_CODE, quietly
from bitwright.compress.models.latent_attention import LatentByHead, is_latent
from bitwright.compress.models.loading import load, open_source
from bitwright.compress.models.model import Model
from bitwright.compress.models.routers import is_corrected, router_parameters, router_tensors
from bitwright.compress.models.similar_experts import Expert, twins
from bitwright.compress.models.source import Bytes, Floats, KeyValue, Source
from bitwright.compress.models.tensor_layout import Piece

__all__ = [
    "ALIGNMENT",
    "ARCHITECTURES",
    "CONFIG",
    "FLOAT_TYPES",
    "GGML",
    "INDEX",
    "MIXTRAL",
    "NO_CODE",
    "ROUNDINGS",
    "WHOLE",
    "WIDTHS",
    "_ALIGNMENT_KEY",
    "_FILE_TYPE",
    "Apart",
    "Bytes",
    "Codec",
    "Dimensions",
    "Distortion",
    "Dropped",
    "Entry",
    "Expert",
    "Floats",
    "GgmlCodec",
    "GgufSource",
    "Home",
    "HuggingFaceSource",
    "IntegerCodec",
    "KeptCodes",
    "KeyValue",
    "LatentByHead",
    "Layer",
    "Levels",
    "MadeOnce",
    "Model",
    "PackedCodec",
    "Piece",
    "Rerouting",
    "Rounding",
    "RoundsInputs",
    "Slot",
    "Source",
    "Stitcher",
    "Weights",
    "_stored_bytes",
    "applied",
    "cached_in",
    "cut_importance",
    "cut_pieces",
    "digest",
    "dimensions",
    "discard",
    "dropped",
    "entries",
    "expanded",
    "fingerprint",
    "header",
    "holds",
    "in_module_order",
    "in_type",
    "is_corrected",
    "is_latent",
    "keep_codes",
    "keep_weights",
    "kept_weights",
    "layer_bytes",
    "layer_tensors",
    "load",
    "matrix_shape",
    "measure_distortion",
    "needs_moments",
    "open_home",
    "open_source",
    "planned_weights",
    "quietly",
    "read_imatrix",
    "replacing",
    "rerouted",
    "rounding_named",
    "router_parameters",
    "router_tensors",
    "rows_in_memory",
    "shards",
    "stitched",
    "stored_type",
    "twins",
    "weights_of",
    "with_inputs",
    "without",
    "write_imatrix",
]
