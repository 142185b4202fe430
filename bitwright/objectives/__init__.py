"""What a choice is worth: quality on text, and what an engine says of it."""

from bitwright.objectives.cost import Cost, CostObjective, bits_cost, bytes_cost
from bitwright.objectives.divergence import Divergence, cache_divergence, next_token_log_probabilities
from bitwright.objectives.effective_rank import EffectiveRank, EffectiveRankDifference
from bitwright.objectives.energy import PackageEnergy, package_energy
from bitwright.objectives.evaluator import Evaluation, Evaluator
from bitwright.objectives.flips import Flips
from bitwright.objectives.harness import Harness, HarnessError
from bitwright.objectives.importance import collect_importance
from bitwright.objectives.jensen_shannon import ClampedJensenShannon, JensenShannon
from bitwright.objectives.kullback_leibler import KullbackLeibler, TopKullbackLeibler
from bitwright.objectives.latency import Timed, fit_latency
from bitwright.objectives.llama_cpp import Generated, LlamaCpp
from bitwright.objectives.llama_cpp_memory import MemoryLine, MemoryUse, Serving, memory_use, require_accounting
from bitwright.objectives.measurement import Measurement, standard_error
from bitwright.objectives.moments import MomentsOfText, gathered_moments
from bitwright.objectives.named import Named, parse_objectives
from bitwright.objectives.objective import Estimate, ModelObjective, Preparation, TokenObjective
from bitwright.objectives.perplexity import Perplexity
from bitwright.objectives.rank_correlation import Kendall, Spearman
from bitwright.objectives.reading import Reading, reading, shares_read
from bitwright.objectives.reference import Reference
from bitwright.objectives.router_shift import RouterShift
from bitwright.objectives.routing import NO_ROUTING, Routed, Routing, added, collect_routing, kept_routing, routing_from, routing_key, watched_routers
from bitwright.objectives.store import Store
from bitwright.objectives.taps import Tap, Tapped, Use, is_mixture
from bitwright.objectives.task_error import Likelihood, TaskError, TaskErrorByLength, likelihoods
from bitwright.objectives.tasks import Item, Task, read_task
from bitwright.objectives.tokens import Shape, Texts, Tokens, dataset_documents, draw, long_sequences, read_documents, sample_texts, split_texts
from bitwright.objectives.user_function import UserFunction, read_function
from bitwright.objectives.vllm_engine import in_vllm, python_of_vllm
from bitwright.objectives.worst_slice import WorstSlice

__all__ = [
    "NO_ROUTING",
    "ClampedJensenShannon",
    "Cost",
    "CostObjective",
    "Divergence",
    "EffectiveRank",
    "EffectiveRankDifference",
    "Estimate",
    "Evaluation",
    "Evaluator",
    "Flips",
    "Generated",
    "Harness",
    "HarnessError",
    "Item",
    "JensenShannon",
    "Kendall",
    "KullbackLeibler",
    "Likelihood",
    "LlamaCpp",
    "Measurement",
    "MemoryLine",
    "MemoryUse",
    "ModelObjective",
    "MomentsOfText",
    "Named",
    "PackageEnergy",
    "Perplexity",
    "Preparation",
    "Reading",
    "Reference",
    "Routed",
    "RouterShift",
    "Routing",
    "Serving",
    "Shape",
    "Spearman",
    "Store",
    "Tap",
    "Tapped",
    "Task",
    "TaskError",
    "TaskErrorByLength",
    "Texts",
    "Timed",
    "TokenObjective",
    "Tokens",
    "TopKullbackLeibler",
    "Use",
    "UserFunction",
    "WorstSlice",
    "added",
    "bits_cost",
    "bytes_cost",
    "cache_divergence",
    "collect_importance",
    "collect_routing",
    "dataset_documents",
    "draw",
    "fit_latency",
    "gathered_moments",
    "in_vllm",
    "is_mixture",
    "kept_routing",
    "likelihoods",
    "long_sequences",
    "memory_use",
    "next_token_log_probabilities",
    "package_energy",
    "parse_objectives",
    "python_of_vllm",
    "read_documents",
    "read_function",
    "read_task",
    "reading",
    "require_accounting",
    "routing_from",
    "routing_key",
    "sample_texts",
    "shares_read",
    "split_texts",
    "standard_error",
    "watched_routers",
]
