"""What a choice is worth: quality on text, and what an engine says of it."""

from bitwright.objectives.divergence import Divergence, Reference, next_token_log_probabilities
from bitwright.objectives.flips import Flips
from bitwright.objectives.importance import collect_importance
from bitwright.objectives.jensen_shannon import ClampedJensenShannon, JensenShannon
from bitwright.objectives.kullback_leibler import KullbackLeibler, TopKullbackLeibler
from bitwright.objectives.llama_cpp import Generated, LlamaCpp
from bitwright.objectives.measurement import Measurement, standard_error
from bitwright.objectives.objective import Estimate, ModelObjective, Preparation, SizeObjective, TokenObjective
from bitwright.objectives.perplexity import Perplexity
from bitwright.objectives.store import Store
from bitwright.objectives.taps import Tap, Tapped, Use, is_mixture
from bitwright.objectives.tokens import Shape, Texts, Tokens, dataset_documents, draw, read_documents, sample_texts, split_texts

__all__ = [
    "ClampedJensenShannon",
    "Divergence",
    "Estimate",
    "Flips",
    "Generated",
    "JensenShannon",
    "KullbackLeibler",
    "LlamaCpp",
    "Measurement",
    "ModelObjective",
    "Perplexity",
    "Preparation",
    "Reference",
    "Shape",
    "SizeObjective",
    "Store",
    "Tap",
    "Tapped",
    "Texts",
    "TokenObjective",
    "Tokens",
    "TopKullbackLeibler",
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
