"""What the experiments share: figures of studies."""

import numpy as np
from PIL import Image

from shared import pictures


def is_a_picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
    return 2_000 < path.stat().st_size < 150_000


def test_calibration(tmp_path):
    uniform, shifted = np.arange(1, 20) * 5, np.minimum(np.arange(1, 20) * 9, 100)
    rows = [
        {"quantity": name, "simulations": 100, "draws": 19, "counts_below": counts.tolist()}
        for name, counts in (("log-likelihood", uniform), ("smallest mean", shifted))
    ]
    pictures.calibration(tmp_path / "a.png", rows * 4, 0.99)
    assert is_a_picture(tmp_path / "a.png")


def test_scaling_is_drawn_from_rows_alone(tmp_path):
    rows = [
        {"axis": axis, "at": at, "method": method, "seconds": at * much, "seconds_low": at, "seconds_high": 9 * at}
        | {"floor_seconds": None if axis == "restarts" else 0.1 * at}
        for axis in ("n", "restarts")
        for at in (10, 100, 1000)
        for method, much in (("gmm_jax", 1.0), ("scikit-learn", 8.0))
    ]
    pictures.scaling(tmp_path / "a.png", rows, {"n": "one iteration", "restarts": "a search"})
    assert is_a_picture(tmp_path / "a.png")


def test_curves_with_lines_of_several_truths_and_numbers_that_are_missing(tmp_path):
    rows = [
        {"n": n, "method": method, "line": line, "kl": None if n == 10 else line / n, "kl_se": 0.1 / n}
        for n in (10, 100, 1000)
        for method in ("em", "gibbs")
        for line in (1, 2)
    ]
    looks = {"expected": {"kl": 0.01}, "logarithmic": ("n",), "from_zero": ("kl",)}
    pictures.curves(tmp_path / "a.png", rows, "n", {"kl": "KL from truth"}, **looks)
    assert is_a_picture(tmp_path / "a.png")


def test_ratios_with_a_panel_that_has_none(tmp_path):
    rows = [{"n": 10.0**i, "overlap": 0.1 / i, "k": i, "ratio": 2.0 ** (i - 2)} for i in (1, 2, 3)]
    looks = {"size": "k", "edges": {"n": (50.0,)}}
    pictures.ratios(tmp_path / "a.png", {"some": rows, "none": []}, {"n": "n", "overlap": "ω"}, "ratio", "r", **looks)
    assert is_a_picture(tmp_path / "a.png")
