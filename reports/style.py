"""How the page's viewer and the report look: colours, and one style of heat map for both."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from diagnosis.maps.explain import Map
from studies import to_json

INK, QUIET, ACCENT, PLAIN = "#1b2733", "#5c6b7a", "#1f6f8b", "#9db4c0"
BAD, DOUBT, GOOD = "#b3261e", "#b26a00", "#2e7d4f"
# How structures are outlined, in the viewer and in the report, large ones first so that small ones lie on top:
# lightness and hue tell those apart that touch, for people of any colour vision.
OUTLINES: dict[str, str] = {
    "fluid": "#7fa8c9", "white": "#f2e2c4", "grey": "#b98fd0", "cerebellum": "#8fbf6a", "stem": "#d9a066",
    "lateral": "#38b6ff", "third": "#5ad1c8", "fourth": "#2f9e8f", "inferior_horn": "#ff8ad1",
    "hippocampus": "#ffd000",
}  # fmt: skip


@dataclass(frozen=True)
class HeatStyle:
    """How a scan and the heat map over it are drawn; the viewer gets the same record as JSON."""

    # dark violet over red to pale yellow: even steps in lightness, readable without colour vision
    stops: tuple[tuple[float, int, int, int], ...] = (
        (0.0, 60, 9, 90),
        (0.3, 140, 30, 105),
        (0.55, 213, 68, 70),
        (0.8, 250, 141, 40),
        (1.0, 252, 238, 140),
    )
    threshold: float = 0.4  # of the strongest influence: what is weaker is not shown
    opacity: float = 0.7
    faintest: float = 0.12  # of the opacity, just above the threshold: what is weak fades in, without a hard edge
    air: float = 0.04  # grey values below it hold no signal worth the name
    over_air: float = 0.3  # of the opacity: over air the map is only hinted at
    white: float = 99.8  # percentile of the foreground that is shown as white; black is no signal

    def json(self) -> str:
        return to_json(asdict(self))

    def colours(self, strength: np.ndarray) -> np.ndarray:
        """Strengths (…) from 0 to 1 as RGB (…, 3) from 0 to 1."""
        at, *channels = zip(*self.stops, strict=True)
        return np.stack([np.interp(strength, at, channel) for channel in channels], -1) / 255

    def blend(self, grey: np.ndarray, strength: np.ndarray | None) -> np.ndarray:
        """A plane's grey values (rows, columns), 0 to 1, under a map's strengths, as RGB from 0 to 1."""
        picture = np.repeat(grey[..., None], 3, -1)
        if strength is None:
            return picture
        above = (strength - self.threshold) / (1 - self.threshold)
        share = self.opacity * (self.faintest + (1 - self.faintest) * above)
        share = np.where(above > 0, share, 0) * np.where(grey < self.air, self.over_air, 1)
        return picture + share[..., None] * (self.colours(strength) - picture)


HEAT = HeatStyle()
SPIKY = {"relevance": 1.5}  # voxels by which a map of single-voxel spikes is smoothed before it is shown


def strengths(heat_map: Map) -> np.ndarray:
    """What a map shows, 0 to 1 of its strongest influence for the class; what speaks against is left out."""
    values = heat_map.values.clip(0)
    if heat_map.method in SPIKY:
        values = gaussian_filter(values, SPIKY[heat_map.method], truncate=3)
    top = float(values.max())
    return values / top if top > 0 else values
