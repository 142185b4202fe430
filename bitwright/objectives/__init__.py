"""Measure plans: quality on text, bytes, and seconds."""

from bitwright.objectives.by_name import OBJECTIVE_PARTS, NamedObjective, parse_objectives
from bitwright.objectives.bytes_per_token import Reading, ReadShares, StepRates, reading, step_rates, tensor_read_shares
from bitwright.objectives.cost import Cost, CostObjective, bits_cost, bytes_cost
from bitwright.objectives.evaluator import QUALITY, Evaluator, quality_of
from bitwright.objectives.measurement import Estimate, Measurement, standard_error
from bitwright.objectives.measuring import Measuring
from bitwright.objectives.metrics.jensen_shannon import ClampedJensenShannon
from bitwright.objectives.metrics.kullback_leibler import KullbackLeibler
from bitwright.objectives.next_tokens import next_token_log_probabilities
from bitwright.objectives.objective import ModelObjective, Preparation, TokenObjective
from bitwright.objectives.reference import PendingReference, Reference, batches_of
from bitwright.objectives.store import Store, readable_store
from bitwright.objectives.text.decoder_blocks import decoder_blocks
from bitwright.objectives.text.documents import dataset_documents, read_documents, require_datasets, require_readable
from bitwright.objectives.text.given import documents_of, given_texts, is_local
from bitwright.objectives.text.importance import collect_importance
from bitwright.objectives.text.moments import MomentsOfText, collect_moments
from bitwright.objectives.text.routing import NO_ROUTING, RouterCall, Routing, added, cached_routing, hook_routers, routing_from, routing_key
from bitwright.objectives.text.sampling import draw, sample_texts, sample_with_importance
from bitwright.objectives.text.taps import Tap, Tapped, Use, is_mixture
from bitwright.objectives.text.token_reader import TokenReader
from bitwright.objectives.text.tokens import (
    Shape,
    Texts,
    Tokens,
    embedding_rows,
    long_sequences,
    require_first_token,
    require_known,
    split_texts,
)
from bitwright.objectives.text.words import between_commas, is_file

__all__ = [
    "NO_ROUTING",
    "OBJECTIVE_PARTS",
    "QUALITY",
    "ClampedJensenShannon",
    "Cost",
    "CostObjective",
    "Estimate",
    "Evaluator",
    "KullbackLeibler",
    "Measurement",
    "Measuring",
    "ModelObjective",
    "MomentsOfText",
    "NamedObjective",
    "PendingReference",
    "Preparation",
    "ReadShares",
    "Reading",
    "Reference",
    "RouterCall",
    "Routing",
    "Shape",
    "StepRates",
    "Store",
    "Tap",
    "Tapped",
    "Texts",
    "TokenObjective",
    "TokenReader",
    "Tokens",
    "Use",
    "added",
    "batches_of",
    "between_commas",
    "bits_cost",
    "bytes_cost",
    "cached_routing",
    "collect_importance",
    "collect_moments",
    "dataset_documents",
    "decoder_blocks",
    "documents_of",
    "draw",
    "embedding_rows",
    "given_texts",
    "hook_routers",
    "is_file",
    "is_local",
    "is_mixture",
    "long_sequences",
    "next_token_log_probabilities",
    "parse_objectives",
    "quality_of",
    "read_documents",
    "readable_store",
    "reading",
    "require_datasets",
    "require_first_token",
    "require_known",
    "require_readable",
    "routing_from",
    "routing_key",
    "sample_texts",
    "sample_with_importance",
    "split_texts",
    "standard_error",
    "step_rates",
    "tensor_read_shares",
]
