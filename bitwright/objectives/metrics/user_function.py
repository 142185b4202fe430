"""User-defined objectives: a function `function(model) -> (value, standard error)`, to be minimised.

    def seconds(model):
        return 0.12, 0.01

`model.module` is the torch module with the weights of the choice, `model.tokenizer` its tokenizer. An exception in the function is reported in one
sentence; measurements stored before it stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from math import isfinite
from numbers import Real
from pathlib import Path

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives.measurement import Estimate
from bitwright.objectives.objective import ModelObjective
from bitwright.whole_files import regular


@dataclass(frozen=True)
class UserFunction(ModelObjective):
    """User-defined function of a model, which must not change the model's weights; its values are stored under its name."""

    function: Callable[[Model], tuple[float, float]]
    name: str = "user"
    unit: str = ""

    def evaluate_model(self, model: Model) -> Estimate:
        """Call the user's function and require a finite value and a standard error."""
        try:
            found: object = self.function(model)
        except Exception as error:
            raise ObjectiveError(
                f"An objective must return a value and its standard error; {self.name} raised {_message(error)}: fix the function."
            ) from error
        match found:
            case (Real() as value, Real() as deviation) if isfinite(value) and float(deviation) >= 0:  # false for NaN
                return Estimate(float(value), float(deviation))
        returned = " ".join(repr(found).split())[:80]
        raise ObjectiveError(
            f"An objective must return a finite value and its standard error, two numbers; {self.name} returned {returned}: fix the function."
        )


def read_function(path: Path, name: str) -> UserFunction:
    """Load the function `name` of a Python file as the objective `path:name`.

    Raises:
        ObjectiveError: the file cannot be read or run, or has no such function.
    """
    try:
        spec = spec_from_file_location(path.stem, regular(path))
    except OSError as error:
        raise ObjectiveError(f"An objective of your own lies in a file of Python; {path} is none ({error.strerror}): check the path.") from error
    if spec is None or spec.loader is None:
        raise ObjectiveError(f"A user-defined objective must be in a Python file; {path} is not one: write FILE.py:FUNCTION.")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ObjectiveError(f"The file of an objective must run in Python; {path} does not ({_message(error)}): fix it.") from error
    function = vars(module).get(name)
    if not callable(function):
        raise ObjectiveError(f"A user-defined objective must be a function in its file; {path} has no function '{name}': check the name.")
    return UserFunction(function, name=f"{path}:{name}")


def _message(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
