"""Long calibration sequences on which KV cache types are measured.

A token attends to all keys and values before it, so the loss of their types depends on the context and is measured on sequences of
`Settings.cache_length` tokens, or as many as the model's context and the text allow. `LONGEST` is about as many tokens as one forward pass takes
anyway, and the divergence at 4,096 tokens hardly differs (`benchmarks/cache.py contexts`). Text sampled from the model keeps its length. The number
of tokens is the same for every length.
"""

from pathlib import Path

from bitwright.compress import dimensions
from bitwright.objectives import Tokens, documents_of, long_sequences, require_known
from bitwright.pipeline.calibration.mixture import shares_in
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.run import Run
from bitwright.pipeline.settings import SELF
from bitwright.spaces import has_cache

N_TOKENS = 2048
_TEXT = "types of the cache were measured on"


def long_text(loaded: LoadedRun) -> Tokens:
    """Return the calibration text for cache types; of a mixture, the text with the largest weight. The run stores its description."""
    settings, short = loaded.settings, loaded.texts.calibration
    share = max(shares_in(settings.calibration), key=lambda share: share.weight)
    length = min(settings.cache_length, dimensions(loaded.model.source).context_length)
    if share.name == SELF or length <= settings.sequence_length:
        ids = short.ids[:, :length]
        tokens = Tokens(ids[: max(N_TOKENS // ids.shape[1], 1)], short.text)
    else:
        name = Path(share.name).name
        documents = documents_of(share.name, settings.text_column)
        tokens = long_sequences(documents, loaded.model.tokenizer, settings.shape, length=length, n_tokens=N_TOKENS, name=name)
        require_known(tokens.ids, loaded.model, text=name)
    loaded.store.put_text(_TEXT, f"{len(tokens.ids)} sequences of {tokens.ids.shape[1]:,} tokens of {tokens.text}")
    return tokens


def cache_text(run: Run) -> dict[str, str]:
    """Return the description of the text on which cache types were measured, under its heading; empty if the run does not choose them."""
    return {_TEXT: run.store.text(_TEXT)} if has_cache(run.space) else {}
