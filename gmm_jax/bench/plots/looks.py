"""Colours, and how components, methods and the truth look in every figure."""

from colorsys import hsv_to_rgb

import numpy as np

from ...mixture import responsibilities

INK, MUTED, GRID = "#222222", "#6f6f6f", "#e4e4e4"
DASHED = (0, (4, 2))
TRUTH = {"color": INK, "linestyle": DASHED}
COMPONENTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#555555")  # Okabe & Ito
METHODS = ("em", "nuts", "gibbs", "svi", "oracle")  # which have the first looks; other methods follow
COLOURS = (  # Tol's muted scheme, which is safe for colour-blind readers too
    *("#332288", "#cc6677", "#117733", "#999933", "#777777"),
    *("#44aa99", "#aa4499", "#88ccee", "#882255", "#ddcc77", "#000000"),
)
MARKERS = "os^DPvX<>p*"


def colours_of(n):
    """n component colours; beyond the palette, hues by the golden ratio."""
    hues = [(0.13 + 0.618034 * i) % 1.0 for i in range(n - len(COMPONENTS))]
    more = ["#" + "".join(f"{round(255 * part):02x}" for part in hsv_to_rgb(hue, 0.65, 0.75)) for hue in hues]
    return [*COMPONENTS[:n], *more]


def name_components(panel, labels):
    """A legend with the colour of each component; none for more than there are colours."""
    if len(labels) <= len(COMPONENTS):
        for colour, label in zip(colours_of(len(labels)), labels, strict=True):
            panel.plot([], [], "o", color=colour, markersize=4, label=label)
        panel.legend(title="component", title_fontsize=8, loc="best", handletextpad=0.2)


def blend(gmm, x):
    """(N, 3): the component colours mixed by responsibility."""
    return mixed(np.asarray(responsibilities(gmm, x.astype(np.asarray(gmm.means).dtype))))


def mixed(r):
    """(N, 3): the same from responsibilities (N, K)."""
    colours = [[int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5)] for colour in colours_of(r.shape[1])]
    return np.clip(np.nan_to_num(r) @ np.array(colours), 0.0, 1.0)


def method_looks(names):
    """name -> colour and marker, the same in every figure for the methods that ship."""
    looks = [{"color": colour, "marker": marker} for colour, marker in zip(COLOURS, MARKERS, strict=True)]
    others = iter(looks[len(METHODS) :] * 10)
    return {name: looks[METHODS.index(name)] if name in METHODS else next(others) for name in names}
