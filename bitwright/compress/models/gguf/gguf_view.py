"""View of a model as llama.cpp sees it: the tensors and metadata of a GGUF file, or those that its converter would write of a folder."""

from transformers import PreTrainedModel

from bitwright.compress.models.architectures import architecture_of, bind, window_ignored
from bitwright.compress.models.checkpoints.hugging_face import HuggingFaceSource, metadata_of, tensors_of
from bitwright.compress.models.headers import Headers, Outline, exact_headers
from bitwright.compress.models.opening import Checkpoint, GgufCheckpoint
from bitwright.compress.models.source import Source
from bitwright.compress.models.view import Bound, View, outline_of


class GgufView(View):
    """View of the tensors and metadata of a GGUF file."""

    def source(self, checkpoint: Checkpoint) -> Source:
        """Return the tensors of the model in this view, read on demand.

        Raises:
            ModelError: the architecture or the tokenizer is not supported, or a weight cannot be read.
        """
        if isinstance(checkpoint, GgufCheckpoint):
            return checkpoint.source
        return HuggingFaceSource(
            checkpoint.name,
            checkpoint.skeleton,
            checkpoint.shards.stored_rows,
            tokenizer=checkpoint.tokenizer,
            folder=checkpoint.path,
            settings=checkpoint.settings,
            narrow_type=checkpoint.shards.narrow_type,
        )

    def headers(self, checkpoint: Checkpoint) -> Outline:
        """Return the headers of the model in this view, without weights."""
        if isinstance(checkpoint, GgufCheckpoint):
            exact = exact_headers(checkpoint.source)
            # loading refuses a GGUF file whose window transformers would apply
            return outline_of(checkpoint, (exact, exact), bind(checkpoint.skeleton, exact.architecture))
        module = checkpoint.skeleton
        widest = "F32" if checkpoint.shards.dtypes & {"F32", "F64"} else "BF16"
        least, most = (
            Headers(
                checkpoint.name,
                architecture_of(checkpoint.config).name,
                metadata_of(checkpoint.name, module, checkpoint.tokenizer, folder=checkpoint.path, stored=stored),
                tensors_of(module, stored),
            )
            for stored in ("BF16", widest)
        )
        return outline_of(checkpoint, (least, most), bind(module, least.architecture), window=window_ignored(checkpoint.config))

    def bound(self, checkpoint: Checkpoint, module: PreTrainedModel) -> Bound:
        """Bind the matrices of this view to the parameters of `module`.

        Raises:
            ModelError: the architecture is not supported, or has no tensor for a parameter.
        """
        if isinstance(checkpoint, GgufCheckpoint):
            return Bound(bind(module, checkpoint.source.architecture))
        return Bound(bind(module, architecture_of(checkpoint.config).name))


GGUF_VIEW = GgufView()
