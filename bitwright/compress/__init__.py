"""What a choice does to weights, and how it is written down."""

from bitwright.compress.apart import Apart, cut_importance
from bitwright.compress.apply import Weights, applied, dropped, planned_weights, rounded_as
from bitwright.compress.architectures import ARCHITECTURES, window_ignored
from bitwright.compress.checkpoint_source import CheckpointSource
from bitwright.compress.clipping import SearchedClipping, clipped
from bitwright.compress.codec import Codec, MadeOnce, largest_weight
from bitwright.compress.container import Container, Recipe
from bitwright.compress.containers import (
    as_held,
    codec_of,
    codecs_of,
    compressed_tensors,
    container_of,
    model_as_held,
    native,
    plain,
    require_codec,
    require_container,
)
from bitwright.compress.dimensions import Dimensions, dimensions
from bitwright.compress.distortion import Distortion, measure_distortion
from bitwright.compress.dropping import Dropped, Gone, Rerouting, forced, rerouted, without
from bitwright.compress.extremes import extremes
from bitwright.compress.floats import FLOAT_TYPES
from bitwright.compress.ggml import GgmlCodec
from bitwright.compress.gguf_container import GgufContainer
from bitwright.compress.gguf_file import GgufSource, fixed_bytes, header_bytes, write_gguf
from bitwright.compress.gptq import Gptq, as_stored, by_activation
from bitwright.compress.grid import Codes, Grid, MinimumGrid, Placement, SymmetricGrid, ZeroPointGrid
from bitwright.compress.half_quadratic import HalfQuadratic
from bitwright.compress.hugging_face import HuggingFaceSource, rows_in_memory
from bitwright.compress.imatrix_file import read_imatrix, write_imatrix
from bitwright.compress.integers import IntegerCodec
from bitwright.compress.kept_codes import KeptCodes, digest, keep_codes
from bitwright.compress.kept_weights import keep_weights, kept_weights
from bitwright.compress.levels import Levels, matrix_shape
from bitwright.compress.load import load, open_skeleton, open_source
from bitwright.compress.model import Model
from bitwright.compress.named_roundings import ROUNDINGS, needs_moments, rounding_named
from bitwright.compress.native_quantizer import NativeConfig, NativeQuantizer
from bitwright.compress.native_reload import load_native, load_tokenizer, written_weights
from bitwright.compress.packed_integers import PackedCodec, layer_tensors
from bitwright.compress.packed_modules import kept_bytes
from bitwright.compress.pieces import Piece
from bitwright.compress.reload import load_packed, loaded_types, unpack_layer_by_layer
from bitwright.compress.rounded_cache import KeptCache, cached_in, kept_cache, kept_keys, kept_values
from bitwright.compress.rounded_inputs import RoundsInputs, rounded_inputs
from bitwright.compress.rounding import Rounded, Rounding, RoundToNearest
from bitwright.compress.routers import is_corrected, router_parameters, router_tensors
from bitwright.compress.source import Bytes, Floats, KeyValue, Source
from bitwright.compress.stitch import Stitcher, stitched
from bitwright.compress.temporary import discard
from bitwright.compress.trial_model import TrialModel, TrialShape, n_layers_of, trial_matrices, trial_of_model, trial_of_shape, write_trial
from bitwright.compress.twins import Expert, twins

__all__ = [
    "ARCHITECTURES",
    "FLOAT_TYPES",
    "ROUNDINGS",
    "Apart",
    "Bytes",
    "CheckpointSource",
    "Codec",
    "Codes",
    "Container",
    "Dimensions",
    "Distortion",
    "Dropped",
    "Expert",
    "Floats",
    "GgmlCodec",
    "GgufContainer",
    "GgufSource",
    "Gone",
    "Gptq",
    "Grid",
    "HalfQuadratic",
    "HuggingFaceSource",
    "IntegerCodec",
    "KeptCache",
    "KeptCodes",
    "KeyValue",
    "Levels",
    "MadeOnce",
    "MinimumGrid",
    "Model",
    "NativeConfig",
    "NativeQuantizer",
    "PackedCodec",
    "Piece",
    "Placement",
    "Recipe",
    "Rerouting",
    "RoundToNearest",
    "Rounded",
    "Rounding",
    "RoundsInputs",
    "SearchedClipping",
    "Source",
    "Stitcher",
    "SymmetricGrid",
    "TrialModel",
    "TrialShape",
    "Weights",
    "ZeroPointGrid",
    "applied",
    "as_held",
    "as_stored",
    "by_activation",
    "cached_in",
    "clipped",
    "codec_of",
    "codecs_of",
    "compressed_tensors",
    "container_of",
    "cut_importance",
    "digest",
    "dimensions",
    "discard",
    "dropped",
    "extremes",
    "fixed_bytes",
    "forced",
    "header_bytes",
    "is_corrected",
    "keep_codes",
    "keep_weights",
    "kept_bytes",
    "kept_cache",
    "kept_keys",
    "kept_values",
    "kept_weights",
    "largest_weight",
    "layer_tensors",
    "load",
    "load_native",
    "load_packed",
    "load_tokenizer",
    "loaded_types",
    "matrix_shape",
    "measure_distortion",
    "model_as_held",
    "n_layers_of",
    "native",
    "needs_moments",
    "open_skeleton",
    "open_source",
    "plain",
    "planned_weights",
    "read_imatrix",
    "require_codec",
    "require_container",
    "rerouted",
    "rounded_as",
    "rounded_inputs",
    "rounding_named",
    "router_parameters",
    "router_tensors",
    "rows_in_memory",
    "stitched",
    "trial_matrices",
    "trial_of_model",
    "trial_of_shape",
    "twins",
    "unpack_layer_by_layer",
    "window_ignored",
    "without",
    "write_gguf",
    "write_imatrix",
    "write_trial",
    "written_weights",
]
