"""The text that types of the cache are measured on: the calibration text in sequences as long as a cache is to hold, as far as that is affordable.

A token reads back as many keys and values as there are before it, so what their types cost is measured at the context that they are for: on
sequences of `Settings.cache_length` tokens, or of as many as the model attends to and the text has. `LONGEST` is about what is read at once anyway,
and a divergence at 4,096 tokens is hardly another (`benchmarks/cache.py contexts`). Text that the model writes itself stays as long as it was
written. Whatever the length, as many tokens are read.
"""

from pathlib import Path

from bitwright.compress import dimensions
from bitwright.objectives import Tokens, long_sequences, require_known
from bitwright.pipeline.calibration_mix import shares_in
from bitwright.pipeline.run import Run
from bitwright.pipeline.settings import SELF
from bitwright.pipeline.workbench import Workbench, documents_of
from bitwright.spaces import has_cache

N_TOKENS = 2048
_TEXT = "types of the cache were measured on"


def long_text(bench: Workbench) -> Tokens:
    """The calibration text for the cache, of several texts the one of most weight. What it is is kept in the run in words."""
    settings, short = bench.settings, bench.texts.calibration
    share = max(shares_in(settings.calibration), key=lambda share: share.weight)
    length = min(settings.cache_length, dimensions(bench.model.source).context_length)
    if share.name == SELF or length <= settings.sequence_length:
        ids = short.ids[:, :length]
        tokens = Tokens(ids[: max(N_TOKENS // ids.shape[1], 1)], short.text)
    else:
        name = Path(share.name).name
        documents = documents_of(share.name, settings.text_column)
        tokens = long_sequences(documents, bench.model.tokenizer, settings.shape, length=length, n_tokens=N_TOKENS, name=name)
        require_known(tokens.ids, bench.model, text=name)
    bench.store.put_text(_TEXT, f"{len(tokens.ids)} sequences of {tokens.ids.shape[1]:,} tokens of {tokens.text}")
    return tokens


def cache_text(run: Run) -> dict[str, str]:
    """What types of the cache were measured on, under a heading that says so; nothing where they are not decided about."""
    return {_TEXT: run.store.text(_TEXT)} if has_cache(run.prices.space) else {}
