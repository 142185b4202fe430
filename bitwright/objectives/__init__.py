"""What a choice is worth: quality on text, and what an engine says of it."""

from bitwright.objectives.divergence import Divergence, Reference, next_token_log_probabilities
from bitwright.objectives.importance import collect_importance
from bitwright.objectives.llama_cpp import Generated, LlamaCpp
from bitwright.objectives.measurement import Measurement, standard_error
from bitwright.objectives.store import Store
from bitwright.objectives.taps import Tap, Tapped, Use, is_mixture
from bitwright.objectives.tokens import Shape, Texts, Tokens, dataset_documents, draw, read_documents, sample_texts, split_texts

__all__ = [
    "Divergence",
    "Generated",
    "LlamaCpp",
    "Measurement",
    "Reference",
    "Shape",
    "Store",
    "Tap",
    "Tapped",
    "Texts",
    "Tokens",
    "Use",
    "collect_importance",
    "dataset_documents",
    "draw",
    "is_mixture",
    "next_token_log_probabilities",
    "read_documents",
    "sample_texts",
    "split_texts",
    "standard_error",
]
