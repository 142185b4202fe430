"""Any function of the user's as an objective: `function(model) -> (value, standard error)`, to be made small.

    def seconds(model):
        return 0.12, 0.01

`model.module` is the torch module with the weights of the choice in it, `model.tokenizer` its tokenizer. Whatever goes wrong in the function becomes
one sentence, and what was measured before is kept by whoever measured it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from math import isfinite
from numbers import Real
from pathlib import Path

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives.objective import Estimate, ModelObjective
from bitwright.whole_files import regular


@dataclass(frozen=True)
class UserFunction(ModelObjective):
    """A function of a model, which must leave the model's weights as they are; its name keeps its values apart from those of others."""

    function: Callable[[Model], tuple[float, float]]
    name: str = "user"
    unit: str = ""

    def of_model(self, model: Model) -> Estimate:
        """See `ModelObjective.of_model`."""
        try:
            found: object = self.function(model)
        except Exception as error:
            raise ObjectiveError(f"An objective must give a value and its standard error; {self.name} raised {_told(error)}: mend it.") from error
        match found:
            case (Real() as value, Real() as deviation) if isfinite(value) and float(deviation) >= 0:  # which what is not a number never is
                return Estimate(float(value), float(deviation))
        given = " ".join(repr(found).split())[:80]
        raise ObjectiveError(f"An objective must give a finite value and its standard error, two numbers; {self.name} gave {given}: mend it.")


def read_function(path: Path, name: str) -> UserFunction:
    """The function `name` of a Python file, as the objective `path:name`.

    Raises:
        ObjectiveError: the file cannot be read or run, or has no such function.
    """
    try:
        spec = spec_from_file_location(path.stem, regular(path))
    except OSError as error:
        raise ObjectiveError(f"An objective of your own lies in a file of Python; {path} is none ({error.strerror}): check the path.") from error
    if spec is None or spec.loader is None:
        raise ObjectiveError(f"An objective of your own lies in a file of Python; {path} is none: name it FILE.py:FUNCTION.")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ObjectiveError(f"An objective's file must be one that Python can run; {path} is not ({_told(error)}): mend it.") from error
    function = vars(module).get(name)
    if not callable(function):
        raise ObjectiveError(f"An objective must be a function of its file; {path} has no function '{name}': check the name.")
    return UserFunction(function, name=f"{path}:{name}")


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
