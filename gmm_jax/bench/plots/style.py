"""Figures in one style: their panels, limits, legends and files. The only module that imports Matplotlib and Pillow."""

import io
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import numpy as np

from ...mixture.files import write_bytes_atomic

DPI = 110
MOST_BYTES = 120_000
STYLE = Path(__file__).with_name("style.mplstyle")


@contextmanager
def open_figure(path, width, height):
    """A figure that is written to path as a small PNG, at once or not at all; nowhere if path is None."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        if path is not None:
            image = Image.fromarray(pixels_of(figure))
            content = _png(image)
            if len(content) >= MOST_BYTES:
                content = _png(image.quantize(256, dither=Image.Dither.NONE))
            write_bytes_atomic(path, content)


@contextmanager
def panels_of(path, n, most, width, height, *, extra=0.4, least=0.0, n_features=2, **options):
    """The figure and its n panels, at most `most` in a row and as many in each; with a third axis for three features.

    Args:
        width, height: inches of a panel; `extra` is added to the height of the figure, whose width is at least `least`.
        options: of `Figure.subplots`.
    """
    n_rows, n_columns = _grid_of(n, most)
    with open_figure(path, max(width * n_columns, least), height * n_rows + extra) as figure:
        yield figure, _panels(figure, n, most, n_features, **options)


def _grid_of(n, most):
    n_rows = max(-(-n // most), 1)
    return n_rows, max(-(-n // n_rows), 1)


def _panels(figure, n, most, n_features, **options):
    subplot = {"projection": "3d"} if n_features == 3 else {}
    panels = figure.subplots(*_grid_of(n, most), squeeze=False, subplot_kw=subplot, **options).ravel()
    for panel in panels[n:]:
        panel.set_axis_off()
    return panels[:n]


def in_style(draw):
    """The same drawing function, whose figures, titles and legends have this style."""

    @wraps(draw)
    def styled(*arguments, **options):
        import matplotlib

        with matplotlib.rc_context(fname=STYLE):
            return draw(*arguments, **options)

    return styled


def new_axes(n, most, width, height, *, n_features=2):
    """The same panels, (n,) axes, in a new figure of pyplot, which shows it where there is a screen."""
    from matplotlib import pyplot

    n_rows, n_columns = _grid_of(n, most)
    figure = pyplot.figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    return _panels(figure, n, most, n_features)


def pixels_of(figure):
    """(H, W, 3) bytes."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(DPI, DPI), optimize=True)
    return file.getvalue()


def write_gif(path, frames):
    """Frames (H, W, 3) of one size as a GIF that shows the last one longest."""
    from PIL import Image

    first, *others = [Image.fromarray(frame).quantize(96, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    durations = [150] * len(others) + [2500]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    write_bytes_atomic(path, file.getvalue())


def png_frames(path) -> list[bytes]:
    """The picture of a PNG file, or each of a GIF's, as PNG."""
    from PIL import Image, ImageSequence

    if path.suffix.lower() == ".png":
        return [path.read_bytes()]
    with Image.open(path) as film:
        return [_png(frame.copy()) for frame in ImageSequence.Iterator(film)]


def same_limits(panels, x, *, bare=False):
    """The same limits everywhere, with the data well inside; `bare` leaves tick labels out of small panels."""
    low, high = x.min(axis=0), x.max(axis=0)
    margin = (0.0 if x.shape[1] == 3 else 0.07) * np.where(high > low, high - low, 1.0) + 0.5 * (high <= low)
    low, high = low - margin, high + margin
    top = max(panel.get_ylim()[1] for panel in panels)
    for panel in panels:
        panel.set_xlim(low[0], high[0])
        if x.shape[1] == 1:
            panel.set(ylim=(0.0, top), yticks=[])
            panel.spines["left"].set_visible(False)
            continue
        panel.set_ylim(low[1], high[1])
        if x.shape[1] == 3:
            panel.set_zlim(low[2], high[2])
            _plain_box(panel, x, bare)
        elif bare:
            panel.tick_params(labelsize=7)
    if x.shape[1] == 2 and not bare:
        panels[0].set(xlabel="feature 1", ylabel="feature 2")


def _plain_box(panel, x, bare):
    """A quiet 3-D box, seen across the direction in which the data spread most."""
    spread = np.linalg.eigh(np.cov((x / np.ptp(x, axis=0).clip(1e-300)).T))[1][:, -1]
    across = np.degrees(np.arctan2(spread[1], spread[0])) - 90.0
    off_axis = (across + 45.0) % 90.0 - 45.0  # face on, a box looks flat
    panel.view_init(elev=16, azim=across + (np.copysign(20.0, off_axis) - off_axis if abs(off_axis) < 20.0 else 0.0))
    panel.set_box_aspect(None, zoom=1.45 if bare else 0.86)
    for i, axis in enumerate((panel.xaxis, panel.yaxis, panel.zaxis)):
        axis.get_major_locator().set_params(nbins=4)
        if bare:
            axis.set_ticklabels([])
        else:
            axis.set_label_text(f"feature {i + 1}")


def legend_below(figure, looks):
    """One legend for the figure: name -> how its line looks."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **{"markersize": 5} | look) for name, look in looks.items()]
    widest = 0.6 + 0.08 * max(map(len, looks), default=0)  # inches
    fitting = max(int(figure.get_figwidth() / widest), 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(fitting, len(handles)) or 1)
