"""Read models, turn weights into bytes of a format and back, and change the weights of a module."""

from bitwright.compress.codecs.codec import Codec, DecodeOnlyCodec, require_quantizable
from bitwright.compress.codecs.combined_codec import CombinedCodec, integer_codec, packed_codec
from bitwright.compress.codecs.disk_bound import DiskBound
from bitwright.compress.codecs.distortion import Distortion, distortion_of_unit, measure_distortion, sampled_distortion
from bitwright.compress.codecs.expansion import expanded_rows, stored_type
from bitwright.compress.codecs.ggml import GgmlCodec
from bitwright.compress.codecs.ggml_feedback import GgmlErrorFeedback
from bitwright.compress.codecs.grid import Grid, MinimumGrid, Placement, SymmetricGrid, ZeroPointGrid
from bitwright.compress.codecs.imatrix_file import read_imatrix, write_imatrix
from bitwright.compress.codecs.packed_cache import PackedTensors, matrix_shape, pieces_of
from bitwright.compress.codecs.packed_integers import Layer, layer_bytes, layer_tensors
from bitwright.compress.codecs.pinned_codes import PinnedCodes, pin_codes
from bitwright.compress.codecs.pinned_weights import pin_weights, read_pinned_weights
from bitwright.compress.codecs.products import dequantized_per_row, multiplied
from bitwright.compress.codecs.rounding.by_name import GGML, OBS, ROUNDING_PARTS, NamedRounding, needs_moments, rounding_named
from bitwright.compress.codecs.rounding.rounding import Rounded, Rounding, RoundToNearest
from bitwright.compress.codecs.rounding.rounding import by_rows as round_groups
from bitwright.compress.codecs.rounding.rounding import values as grid_values
from bitwright.compress.codecs.row_sample import DrawnRows, RowSample, all_rows, drawn_rows
from bitwright.compress.in_place.apply import applied, choice_loader, chosen_weights, dropped, planned_weights, rounded_as
from bitwright.compress.in_place.dropping import DroppedWeights, NarrowedRouter, Rerouting, rerouted, without
from bitwright.compress.in_place.narrowing import NarrowedWeights, narrowed_weights
from bitwright.compress.in_place.rounded_cache import quantized_cache
from bitwright.compress.in_place.rounded_inputs import RoundsInputs, with_inputs
from bitwright.compress.in_place.swapping import EXPANDED_BYTES, WeightSwapper, swapping
from bitwright.compress.in_place.trainable import TrainableMatrix, is_trainable
from bitwright.compress.models.architectures import ARCHITECTURES, MODEL_TYPES, window_ignored
from bitwright.compress.models.auto_class import auto_class
from bitwright.compress.models.channels.channel_map import ChannelMap, ChannelScales, HeadRotations, channel_order
from bitwright.compress.models.channels.junctions import Junction, junctions
from bitwright.compress.models.channels.reparametrized_source import Reparametrization, ReparametrizedSource, reparametrization
from bitwright.compress.models.checkpoints.checkpoint import dtypes_of, shards, tensors_in
from bitwright.compress.models.checkpoints.checkpoint_files import CheckpointEntry, CheckpointFiles, open_checkpoint_files
from bitwright.compress.models.checkpoints.checkpoint_shards import INDEX, WHOLE
from bitwright.compress.models.checkpoints.configuration_file import CONFIG, quantization_of, read_configuration
from bitwright.compress.models.checkpoints.fewer_blocks import renumbered
from bitwright.compress.models.checkpoints.hugging_face import rows_in_memory
from bitwright.compress.models.checkpoints.safetensors_file import WIDTHS, StoredTensor, entries, header
from bitwright.compress.models.cut_source import CutSource, cut_importance, cut_pieces
from bitwright.compress.models.dimensions import Dimensions, dimensions
from bitwright.compress.models.extremes import extremes
from bitwright.compress.models.float_types import FLOAT_TYPES, STORED_TYPES, float_bytes, holds
from bitwright.compress.models.gguf.bounds import list_tensors
from bitwright.compress.models.gguf.gguf_view import GGUF_VIEW
from bitwright.compress.models.gguf.reader import (
    ALIGNMENT,
    ALIGNMENT_KEY,
    FILE_TYPE_KEY,
    IMATRIX_KEYS,
    GgufSource,
    fingerprint,
    padded,
    type_bytes,
    written_bytes,
)
from bitwright.compress.models.gguf.row_matching import Binding, bind_by_rows
from bitwright.compress.models.gguf.split_files import AT_MOST, COUNT, N_TENSORS, NUMBER, named_parts, part_name, parts_beside
from bitwright.compress.models.headers import Headers, Outline, exact_headers
from bitwright.compress.models.hub import NO_CODE, quietly, read_tokenizer
from bitwright.compress.models.joined_name import absolute_name, name_with, split_name
from bitwright.compress.models.latent_attention import LatentByHead, is_latent
from bitwright.compress.models.loading import load, needed_bytes, open_headers, open_source
from bitwright.compress.models.model import Model
from bitwright.compress.models.model_settings import describe_differences
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.modules.module_tensors import module_tensors
from bitwright.compress.models.modules.module_view import LINEAR_VIEW, MODULE_VIEW, ModuleSource, ModuleView, n_experts_used_of
from bitwright.compress.models.modules.structure import ROUTER
from bitwright.compress.models.opening import Checkpoint, FolderCheckpoint, open_checkpoint
from bitwright.compress.models.ordered_source import (
    UNMOVED,
    OrderedSource,
    PartOrder,
    attention_paths,
    kept_energies,
    last_matrices,
    ordered_importance,
    ordered_model,
    part_order,
    require_orderable,
    whole_structure,
)
from bitwright.compress.models.refitted_source import RefittedSource
from bitwright.compress.models.residence import IN_MEMORY, Address, Job, Weights, address, address_within
from bitwright.compress.models.routers import has_corrections, is_corrected, is_of_experts, n_experts, router_parameters, router_tensors
from bitwright.compress.models.similar_experts import Expert, most_similar_experts
from bitwright.compress.models.source import Bytes, Floats, KeyValue, Source
from bitwright.compress.models.streaming.room import Room
from bitwright.compress.models.tensor_layout import Indices, ParameterSlice, in_module_order, indices
from bitwright.compress.models.view import Bound, View, outline_of

__all__ = [
    "ALIGNMENT",
    "ALIGNMENT_KEY",
    "ARCHITECTURES",
    "AT_MOST",
    "CONFIG",
    "COUNT",
    "EXPANDED_BYTES",
    "FILE_TYPE_KEY",
    "FLOAT_TYPES",
    "GGML",
    "GGUF_VIEW",
    "IMATRIX_KEYS",
    "INDEX",
    "IN_MEMORY",
    "LINEAR_VIEW",
    "MODEL_TYPES",
    "MODULE_VIEW",
    "NO_CODE",
    "NUMBER",
    "N_TENSORS",
    "OBS",
    "ROUNDING_PARTS",
    "ROUTER",
    "STORED_TYPES",
    "UNMOVED",
    "WHOLE",
    "WIDTHS",
    "Address",
    "Binding",
    "Bound",
    "Bytes",
    "ChannelMap",
    "ChannelScales",
    "Checkpoint",
    "CheckpointEntry",
    "CheckpointFiles",
    "Codec",
    "CombinedCodec",
    "CutSource",
    "DecodeOnlyCodec",
    "Dimensions",
    "DiskBound",
    "Distortion",
    "DrawnRows",
    "DroppedWeights",
    "Expert",
    "Floats",
    "FolderCheckpoint",
    "GgmlCodec",
    "GgmlErrorFeedback",
    "GgufSource",
    "Grid",
    "HeadRotations",
    "Headers",
    "Indices",
    "Job",
    "Junction",
    "KeyValue",
    "LatentByHead",
    "Layer",
    "MinimumGrid",
    "Model",
    "ModuleSource",
    "ModuleView",
    "NamedRounding",
    "NarrowedRouter",
    "NarrowedWeights",
    "OrderedSource",
    "Outline",
    "PackedTensors",
    "ParameterSlice",
    "PartOrder",
    "PinnedCodes",
    "Placement",
    "RefittedSource",
    "Reparametrization",
    "ReparametrizedSource",
    "Rerouting",
    "Room",
    "RoundToNearest",
    "Rounded",
    "Rounding",
    "RoundsInputs",
    "RowSample",
    "Source",
    "StoredTensor",
    "SymmetricGrid",
    "TrainableMatrix",
    "View",
    "WeightSwapper",
    "Weights",
    "ZeroPointGrid",
    "absolute_name",
    "address",
    "address_within",
    "all_rows",
    "applied",
    "attention_paths",
    "auto_class",
    "bind_by_rows",
    "channel_order",
    "choice_loader",
    "chosen_weights",
    "cut_importance",
    "cut_pieces",
    "dequantized_per_row",
    "describe_differences",
    "dimensions",
    "distortion_of_unit",
    "drawn_rows",
    "dropped",
    "dtypes_of",
    "entries",
    "exact_headers",
    "expanded_rows",
    "extremes",
    "fingerprint",
    "float_bytes",
    "grid_values",
    "has_corrections",
    "header",
    "holds",
    "in_module_order",
    "indices",
    "integer_codec",
    "is_corrected",
    "is_latent",
    "is_of_experts",
    "is_trainable",
    "junctions",
    "kept_energies",
    "last_matrices",
    "layer_bytes",
    "layer_tensors",
    "list_tensors",
    "load",
    "matrix_shape",
    "measure_distortion",
    "module_tensors",
    "most_similar_experts",
    "multiplied",
    "n_experts",
    "n_experts_used_of",
    "name_with",
    "named_parts",
    "narrowed_weights",
    "needed_bytes",
    "needs_moments",
    "open_checkpoint",
    "open_checkpoint_files",
    "open_headers",
    "open_source",
    "ordered_importance",
    "ordered_model",
    "outline_of",
    "packed_codec",
    "padded",
    "part_name",
    "part_order",
    "parts_beside",
    "pieces_of",
    "pin_codes",
    "pin_weights",
    "planned_weights",
    "quantization_of",
    "quantized_cache",
    "quietly",
    "read_configuration",
    "read_imatrix",
    "read_pinned_weights",
    "read_tokenizer",
    "renumbered",
    "reparametrization",
    "require_orderable",
    "require_quantizable",
    "rerouted",
    "round_groups",
    "rounded_as",
    "rounding_named",
    "router_parameters",
    "router_tensors",
    "rows_in_memory",
    "sampled_distortion",
    "shards",
    "split_name",
    "stored_type",
    "swapping",
    "tensors_in",
    "type_bytes",
    "weights_of",
    "whole_structure",
    "window_ignored",
    "with_inputs",
    "without",
    "write_imatrix",
    "written_bytes",
]
