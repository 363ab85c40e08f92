"""Pages and panels in one style: the only place that knows Matplotlib."""

from __future__ import annotations

import io
from contextlib import contextmanager

import numpy as np

from ...mixture.atomic import write_bytes_atomic
from .pens import COMPONENTS, GRID, INK, MUTED, colours_of

DPI = 110
MOST_BYTES = 120_000
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def open_page(path, width, height, dpi=DPI, layout="constrained"):
    """A figure in our style that is written to path as a small PNG, at once or not at all; nowhere if path is None."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        page = Figure(figsize=(width, height), dpi=dpi, layout=layout)
        FigureCanvasAgg(page)
        yield page
        if path is not None:
            page.canvas.draw()
            write_bytes_atomic(path, _png(np.asarray(page.canvas.buffer_rgba())[..., :3]))


def _png(pixels):
    """PNG; of 256 colours where it would be large otherwise."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    content = _encoded(image)
    return content if len(content) < MOST_BYTES else _encoded(image.quantize(256, dither=Image.Dither.NONE))


def _encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(DPI, DPI), optimize=True)
    return file.getvalue()


def write_gif(path, frames):
    """Frames (H, W, 3) of one size as a GIF of 96 colours that shows the last one longest."""
    from PIL import Image

    spread = Image.fromarray(np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]]))
    palette = spread.quantize(96)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[np.argmax(colours.sum(axis=1))] = 255  # white stays white
    palette.putpalette(colours.ravel().tolist())
    first, *others = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    file = io.BytesIO()
    durations = [150] * len(others) + [2500]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    write_bytes_atomic(path, file.getvalue())


def panels_for(page, n_rows, n_columns, n_features):
    """A flat array of panels, with a third axis where there are three features."""
    keywords = {"projection": "3d"} if n_features == 3 else {}
    return page.subplots(n_rows, n_columns, squeeze=False, subplot_kw=keywords).ravel()


def movie_panels(page, view, trace, last):
    """The two panels of the animation, with fixed limits and margins so that nothing jumps."""
    keywords = {"projection": "3d"} if view.shape[1] == 3 else {}
    left = page.add_axes((0.07, 0.05, 0.36, 0.83) if keywords else (0.05, 0.08, 0.44, 0.8), **keywords)
    right = page.add_axes((0.6, 0.15, 0.37, 0.73))
    seen = trace[min(2, last) : last + 1]
    room = 0.08 * max(np.ptp(seen), 1e-9)
    right.set(xlim=(-0.02 * last - 0.1, last * 1.03 + 0.1), ylim=(seen.min() - 3 * room, seen.max() + room))
    right.set(xlabel="iteration", ylabel="log-likelihood ℓ, nats")
    right.grid(axis="y")
    return left, right


def same_limits(panels, x, *, bare=False):
    """The same limits everywhere, with the data well inside; `bare` leaves tick labels out of small panels."""
    low, high = x.min(axis=0), x.max(axis=0)
    room = (0.0 if x.shape[1] == 3 else 0.07) * np.where(high > low, high - low, 1.0) + np.where(high > low, 0.0, 0.5)
    top = max(panel.get_ylim()[1] for panel in panels) if x.shape[1] == 1 else 0.0
    for panel in panels:
        panel.set_xlim(low[0] - room[0], high[0] + room[0])
        if x.shape[1] == 1:
            panel.set_ylim(0.0, top)
            panel.set_yticks([])
            panel.spines["left"].set_visible(False)
            continue
        panel.set_ylim(low[1] - room[1], high[1] + room[1])
        if x.shape[1] == 3:
            panel.set_zlim(low[2] - room[2], high[2] + room[2])
            _calm_box(panel, x, bare)
        elif bare:
            panel.tick_params(labelsize=7)
    if x.shape[1] == 2 and not bare:
        panels[0].set(xlabel="feature 1", ylabel="feature 2")


def _calm_box(panel, x, bare):
    """A quiet 3-D box, seen across the direction in which the data spread most."""
    spread = np.linalg.eigh(np.cov((x / np.ptp(x, axis=0).clip(1e-300)).T))[1][:, -1]
    across = np.degrees(np.arctan2(spread[1], spread[0])) - 90.0
    off_axis = (across + 45.0) % 90.0 - 45.0  # face on, a box looks flat
    panel.view_init(elev=16, azim=across + (np.copysign(20.0, off_axis) - off_axis if abs(off_axis) < 20.0 else 0.0))
    panel.set_box_aspect(None, zoom=1.45 if bare else 0.92)
    for i, axis in enumerate((panel.xaxis, panel.yaxis, panel.zaxis)):
        axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
        axis._axinfo["grid"].update(color=GRID, linewidth=0.6)
        axis.set_major_locator(_few_ticks())
        if bare:
            axis.set_ticklabels([])
        else:
            (panel.set_xlabel, panel.set_ylabel, panel.set_zlabel)[i](f"feature {i + 1}")


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def legend_below(page, entries):
    """One legend for the page: pairs of a name and how its line looks."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **look) for name, look in entries]
    widest = 0.6 + 0.08 * max(len(name) for name, _ in entries)  # inches
    page.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), int(page.get_figwidth() / widest)))


def name_components(panel, n_components):
    """A legend of component colours, where the palette has enough of them."""
    from matplotlib.lines import Line2D

    if n_components > len(COMPONENTS):
        return
    handles = [
        Line2D([], [], color=c, marker="o", linestyle="", markersize=4, label=f"{k + 1}")
        for k, c in enumerate(colours_of(n_components))
    ]
    panel.legend(handles=handles, title="component", title_fontsize=8, loc="best", handletextpad=0.2)
