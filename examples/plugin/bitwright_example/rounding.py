"""Clip 3 % of a group's range from either end, then round to nearest: all other weights get finer levels."""

from bitwright.compress import Floats, Grid, NamedRounding, Placement, Rounded, Rounding, round_groups

SHARE = 0.03


class Trim(Rounding):
    """Round to nearest between ends that are drawn in by a fixed share of the range."""

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        """Round each group to levels over its range less `SHARE` at each end."""

        def place(groups: Floats) -> Placement:
            low, high = groups.min(axis=-1), groups.max(axis=-1)
            return grid.between(low + SHARE * (high - low), high - SHARE * (high - low))

        return round_groups(weights, group, place, grid=grid)


TRIM = NamedRounding("trim", lambda moments: Trim())
