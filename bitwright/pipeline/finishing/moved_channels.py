"""Steps before quantization that move channels between matrices, so that the model computes the same with weights that lose less: `--step scale`,
`--step order-channels`, `--step rotate`.

- `scale`: from down's input into up, from the output projection's into v, and from a norm into the matrices after it (Lin et al., "AWQ", MLSys 2024,
  equation 4: s = E[x²]^(α/2); SmoothQuant's form, Xiao et al., ICML 2023, equation 4, divides by the weights' own size to a power).
- `order-channels`: the channels of a feed-forward part, so that a block of down's weights shares its scale among columns that are alike.
- `rotate`: the channels of each head of v and the output projection, by a Hadamard matrix with random signs (R2 of SpinQuant, Liu et al., ICLR 2025,
  whose rotation is learnt; QuaRot, Ashkboos et al., NeurIPS 2024, has one without signs).

Each place gets the candidate of least error with the codec and the formats that ship (`channel_fitting.py`), or none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import ChannelMap, ChannelScales, HeadRotations, Junction, Reparametrization, channel_order
from bitwright.errors import UserError
from bitwright.pipeline.finishing.channel_fitting import Fitting, ReadChannels
from bitwright.progress import Advance

_ALPHAS, _BETAS = (0.0, 0.25, 0.5, 0.75), (0.25, 0.5, 1.0)
_N_SIGNS = 4
_OF_VALUES = "value-output"


@dataclass(frozen=True)
class MovingStep:
    """Step that moves channels at junctions of some `kinds`: `best` returns the map of one, None where moving nothing is better."""

    name: str
    kinds: tuple[str, ...]
    best: Callable[[ReadChannels], ChannelMap | None]

    def places(self, found: tuple[Junction, ...], *, values: bool) -> tuple[Junction, ...]:
        """Return the junctions that the step looks at, those of values only with `values`."""
        return tuple(at for at in found if at.kind in self.kinds and (values or at.kind != _OF_VALUES))

    def fitted(self, fitting: Fitting, places: Sequence[Junction], advance: Advance) -> Reparametrization:
        """Return the best map of each of the `places` that has a better one than none."""
        maps = []
        for at in places:
            channels = fitting.channels(at)
            by = None if channels is None else self.best(channels)
            if by is not None:
                maps.append((at, by))
            advance(1)
        return Reparametrization(tuple(maps))


def _best_scales(channels: ReadChannels) -> ChannelMap | None:
    """Return the best scales E[x²]^(α/2) / E[w²]^(β/2), of mean logarithm 0: of all α without weights first, then of all β with that α."""
    energies, weights = np.log(channels.energies) / 2, np.log(channels.weight_squares) / 2

    def scales(alpha: float, beta: float) -> ChannelScales | None:
        logs = alpha * energies - beta * weights
        return ChannelScales(np.exp(logs - logs.mean())[None].astype(np.float32)) if alpha or beta else None

    errors = {(alpha, 0.0): channels.error(scales(alpha, 0.0)) for alpha in _ALPHAS}
    alpha, _ = min(errors, key=errors.__getitem__)
    errors |= {(alpha, beta): channels.error(scales(alpha, beta)) for beta in _BETAS}
    return scales(*min(errors, key=errors.__getitem__))


def _best_order(channels: ReadChannels) -> ChannelMap | None:
    """Return the best of the orders by falling size of the weights, of the activations, and of both."""
    energies, weights = channels.energies, channels.weight_squares
    return channels.best(channel_order(np.argsort(-sizes, kind="stable")) for sizes in (weights, energies, energies * weights))


def _best_rotation(channels: ReadChannels) -> ChannelMap | None:
    """Return the best rotation of all heads by a Hadamard matrix with random signs, a random orthogonal one where their width is no power of 2."""
    width, n_heads = channels.at.width, channels.at.n_channels // channels.at.width
    drawn = (_rotation(width, np.random.default_rng(seed)) for seed in range(_N_SIGNS))
    return channels.best(HeadRotations(np.tile(rotation, (n_heads, 1)).astype(np.float32)) for rotation in drawn)


def _rotation(width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if width & (width - 1):
        return np.linalg.qr(rng.normal(size=(width, width)))[0]
    hadamard = np.ones((1, 1))
    while len(hadamard) < width:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signed: NDArray[np.float64] = hadamard / np.sqrt(width) * rng.choice([-1.0, 1.0], size=width)
    return signed


SCALE = MovingStep("scale", ("norm-attention", "value-output", "norm-feed-forward", "up-down"), _best_scales)
ORDER_CHANNELS = MovingStep("order-channels", ("up-down",), _best_order)
ROTATE = MovingStep("rotate", (_OF_VALUES,), _best_rotation)
MOVING_STEPS = {step.name: step for step in (SCALE, ORDER_CHANNELS, ROTATE)}


def require_values_kept(names: tuple[str, ...]) -> None:
    """Raise if a step changes nothing but values that a cache rounds: it is chosen by how weights are rounded alone.

    Raises:
        UserError: see above.
    """
    if ROTATE.name in names:
        raise UserError(
            f"The step {ROTATE.name} changes the values that a cache keeps, which is measured in F16 alone: leave it or --cache-types out."
        )
