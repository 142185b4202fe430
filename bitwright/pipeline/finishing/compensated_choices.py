"""Refitted matrices of a run's choices of formats and structure: computed once, kept in the run's folder, and named by a plan."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bitwright.compress import Floats, PackedTensors, Weights, chosen_weights, matrix_shape, narrowed_weights, with_inputs
from bitwright.pipeline.finishing.compensation import RIDGE, compensated, refits
from bitwright.pipeline.finishing.step_files import kept_matrices
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.run import STEPS, Run
from bitwright.spaces import Choice, Compensation, Format, Structure, Tensor, weight_space, without_cache
from bitwright.written_files import digest


@dataclass(frozen=True, eq=False)
class _Rounded:
    """Weights `(n_rows, n_columns)` of a tensor as a format has them."""

    levels: PackedTensors
    tensor: Tensor
    form: Format

    def __call__(self, weights: Floats) -> Floats:
        codec, importance = self.levels.codec.for_tensor(self.tensor.name), self.levels.importance_of(self.tensor)
        return codec.decode(codec.encode(weights, self.form, importance), self.form, matrix_shape(self.tensor))


@dataclass(frozen=True, eq=False)
class CompensatedChoices:
    """Refitted matrices of choices of a run, whose heads and channels are in the order of `loaded`."""

    loaded: LoadedRun
    run: Run

    def refit(self, choice: Choice, kept: Structure) -> bool:
        """Refit what is left of a choice, unless that was done before, and return whether there is anything to refit. The model must have its
        original weights.
        """
        return any(self._roundings(choice, kept)) and bool(self._refitted(choice, kept))

    def weights(self, choice: Choice, kept: Structure) -> Weights:
        """Return the refitted matrices in their formats, by name; those of a format that rounds its inputs round them."""
        made, found = self._refitted(choice, kept), dict[str, Callable[[], Floats]]()
        for rounded in self._roundings(choice, kept):
            found[rounded.tensor.name] = with_inputs(rounded.form, partial(rounded, made[rounded.tensor.name]))
        return found

    def planned(self, choice: Choice, kept: Structure) -> Compensation:
        """Return the plan's record of the refitted matrices of a choice."""
        path = self._path(choice, kept)
        return Compensation(ridge=RIDGE, path=str(path.absolute()), sha256=digest(path))

    def _refitted(self, choice: Choice, kept: Structure) -> dict[str, Floats]:
        return kept_matrices(self.run, self._path(choice, kept), lambda: self._made(choice, kept))

    def _made(self, choice: Choice, kept: Structure) -> dict[str, Floats]:
        loaded, text = self.loaded, self.loaded.texts.calibration
        weights = narrowed_weights(loaded.model, chosen_weights(loaded.model, loaded.levels, self.run.everything, choice), kept)
        rounded = {rounded.tensor.name: rounded for rounded in self._roundings(choice, kept)}
        with timed(loaded.store, "compensation", 2 * text.n_tokens):
            return compensated(loaded.model, weights, kept, text, rounded=rounded, progress=loaded.progress)

    def _roundings(self, choice: Choice, kept: Structure) -> Iterator[_Rounded]:
        """Yield the roundings of the matrices that are refitted: those of other formats than they are stored in."""
        formats = self._formats(choice)
        for of_block in refits(self.loaded.model, kept).values():
            for refit in of_block:
                form = formats.get(refit.tensor.name, refit.tensor.stored)
                if form != refit.tensor.stored:
                    yield _Rounded(self.loaded.levels, refit.tensor, self.loaded.target.format(form))

    def _formats(self, choice: Choice) -> dict[str, str]:
        return weight_space(self.run.space).names(without_cache(self.run.space, choice))

    def _path(self, choice: Choice, kept: Structure) -> Path:
        key = RIDGE, kept, self.loaded.order.digest, sorted(self._formats(choice).items())
        return self.run.folder / STEPS / f"compensation-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.safetensors"
