import base64
import hashlib
import io
import re
import sys
import time

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gmm_jax.bench import compare, report, store
from gmm_jax.bench.parameters import parameters
from gmm_jax.bench.plots.style import write_gif
from gmm_jax.bench.runner import Cell, known_in
from gmm_jax.mixture import GMM, Known, MixtureSpec, Status, n_parameters, structure

COVARIANCES = np.array([0.6 * np.eye(2), [[0.8, -0.3], [-0.3, 0.6]]])
TRUTH = GMM(np.array([0.7, 0.3]), np.array([[1.0, 1.0], [-1.0, -1.0]]), COVARIANCES)
POINT = GMM(np.array([0.72, 0.28]), TRUTH.means + 0.1, TRUTH.covariances * 1.5)
ERRORS = GMM(np.full(2, 0.01), np.full((2, 2), 0.2), np.full((2, 2, 2), 0.1))
PIXEL = (  # the smallest PNG
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f"
    b"\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"
)


def mixture_of(covariance_type, n_components=2, n_features=3):
    shape = structure(covariance_type).shape(n_components, n_features)
    return GMM(np.ones(n_components), np.zeros((n_components, n_features)), np.zeros(shape), covariance_type)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_every_free_number_has_one_name(covariance_type):
    gmm = mixture_of(covariance_type)
    named = parameters(gmm)
    assert len({entry.label for entry in named}) == len(named)
    assert len(named) == n_parameters(MixtureSpec(2, covariance_type), 3) + 1  # φ sum to one


def test_names_stay_unique_beyond_nine():
    labels = [entry.label for entry in parameters(mixture_of("full", 12, 12))]
    assert len(set(labels)) == len(labels)


def test_labels_are_those_of_the_formulas():
    expected = "φ₁ φ₂ μ₁₁ μ₁₂ μ₂₁ μ₂₂ Σ₁,₁₁ Σ₁,₂₁ Σ₁,₂₂ Σ₂,₁₁ Σ₂,₂₁ Σ₂,₂₂"
    assert " ".join(entry.label for entry in parameters(TRUTH)) == expected


def test_z_is_the_error_in_units_of_its_uncertainty():
    table = report.parameter_rows(TRUTH, Known(), {"em": (POINT, ERRORS, Status.CONVERGED)})
    z = {row[0]: float(row[3]) for row in table.rows}
    expected = {"φ₁": 2.0, "φ₂": -2.0, "μ₁₁": 0.5, "μ₂₂": 0.5, "Σ₁,₁₁": 3.0, "Σ₁,₂₁": 0.0, "Σ₂,₂₁": -1.5}
    assert expected == {name: z[name] for name in expected}


def test_the_table_says_estimate_and_uncertainty_to_the_digits_that_count():
    table = report.parameter_rows(TRUTH, Known(), {"em": (POINT, ERRORS, Status.CONVERGED)})
    assert table.columns == ("", "truth", "em", "z")
    assert table.rows[0] == ("φ₁", "0.700", "0.720 ± 0.010", "+2.0")
    assert table.rows[2] == ("μ₁₁", "1.000", "1.10 ± 0.20", "+0.5")


def test_known_values_are_marked_and_have_no_z():
    known = Known(weights=TRUTH.weights, means=np.array([[np.nan, np.nan], [-1.0, -1.0]]))
    table = report.parameter_rows(TRUTH, known, {"em": (POINT, ERRORS, Status.CONVERGED)})
    marked = {row[0] for row in table.rows if row[2] == "known"}
    assert marked == {"φ₁", "φ₂", "μ₂₁", "μ₂₂"}
    assert all(row[3] == "—" for row in table.rows if row[0] in marked)


def test_failures_are_seen_and_explained():
    answers = {"em": (None, None, Status.FAILED), "nuts": (POINT, ERRORS, Status.UNMIXED)}
    table = report.parameter_rows(TRUTH, Known(), answers)
    assert table.columns == ("", "truth", "em †", "nuts †", "z")
    assert table.rows[0][2] == "—"
    assert any("chains disagree" in note for note in table.notes)


def test_real_data_have_no_truth():
    answers = {"em": (POINT, ERRORS, Status.CONVERGED), "svi": (POINT, None, Status.MAX_ITER)}
    table = report.parameter_rows(None, Known(), answers)
    assert table.columns == ("", "em", "svi")
    assert table.rows[0] == ("φ₁", "0.720 ± 0.010", "0.720")
    assert report.parameter_rows(None, Known(), {"em": (None, None, Status.FAILED)}).rows == ()


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (0.68412, 0.0213, "0.684 ± 0.021"),
        (-1234.5, 12.0, "-1234 ± 12"),
        (1e-9, 2.3e-11, "1.000e-09 ± 2.3e-11"),
        (1e8, 0.5, "1.000000e+08 ± 5.0e-01"),
        (0.5, float("nan"), "0.500"),
        (0.5, 0.0, "0.500"),
        (0.0, 0.07, "0.000 ± 0.070"),
        (float("nan"), 0.1, "—"),
    ],
)
def test_digits_follow_the_uncertainty(value, uncertainty, text):
    assert report.with_uncertainty(value, uncertainty) == text


def test_standard_errors_of_em_stand_beside_the_sds_of_posteriors():
    """A column a method, a line for each of φ, μ and Σ: medians over seeds of root mean squares over all entries."""
    rng = np.random.default_rng(0)
    errors = {
        (method, seed): GMM(*(rng.random(shape) for shape in ((2,), (2, 3), (2, 3))), "diag")
        for method in ("em", "gibbs")
        for seed in range(3)
    }
    rows = [
        {"problem": "p", "case": "c", "method": method, "seed": seed, "standard_errors": store.mixture_record(gmm)}
        for (method, seed), gmm in errors.items()
    ]
    table = compare.uncertainty_table([*rows, rows[0] | {"method": "no_errors", "standard_errors": None}])
    assert table.columns == ("problem", "case", "parameter", "em", "gibbs")
    expected = [  # a diag mixture has 2·3·3 entries in its matrices
        [np.median([root(errors[method, seed]) for seed in range(3)]) for method in ("em", "gibbs")]
        for root in (
            lambda gmm: np.sqrt(np.mean(gmm.weights**2)),
            lambda gmm: np.sqrt(np.mean(gmm.means**2)),
            lambda gmm: np.sqrt(np.sum(gmm.covariances**2) / 18),
        )
    ]
    assert [line[2] for line in table.rows] == ["φ", "μ", "Σ"]
    np.testing.assert_allclose([[float(cell) for cell in line[3:]] for line in table.rows], expected, rtol=6e-3)


def test_three_methods_fit_into_100_columns_without_colour(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    answers = dict.fromkeys(("em", "nuts", "gibbs"), (POINT, ERRORS, Status.SAMPLED))
    file = io.StringIO()
    report.print_table(Console(file=file), "[bold]course_2d[/bold]", report.parameter_rows(TRUTH, Known(), answers))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in file.getvalue()
    assert lines[0].strip() == "[bold]course_2d[/bold]"  # text, not markup
    assert sum("…" in line for line in lines) == 0
    assert [line.split()[0] for line in lines if line.startswith("Σ₂,₂₂")] == ["Σ₂,₂₂"]


def test_a_wide_table_is_not_cut_where_output_is_no_terminal():
    file = io.StringIO()
    table = report.Table(tuple("abc"), (("x", "y" * 80, "z" * 80),))
    report.print_table(Console(file=file, width=80), "wide", table)
    assert "y" * 80 in file.getvalue()
    assert "z" * 80 in file.getvalue()


def test_a_long_head_is_broken_into_lines():
    file = io.StringIO()
    table = report.Table(("optimum", "smallest relative variance"), (("1", "0.1"),))
    report.print_table(Console(file=file, width=80), "", table)
    assert " ".join(file.getvalue().split()[:4]) == "smallest relative optimum variance"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_no_bar_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with report.progress_bar("em", 10) as update:
        update(5)
        time.sleep(0.05)
    assert sys.stderr.getvalue() == ""


def test_a_bar_on_a_terminal_and_no_colour_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with report.progress_bar("long [x]") as update:
        time.sleep(0.1)
        update(3, total=10, note="ℓ = -1")
        time.sleep(0.2)
    assert "long [x]" in sys.stderr.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", sys.stderr.getvalue())


@pytest.fixture
def page(tmp_path):
    (tmp_path / "a.png").write_bytes(PIXEL)
    evil = "<script>alert(1)</script>\"'&"
    table = report.parameter_rows(TRUTH, Known(), {evil: (POINT, ERRORS, Status.CONVERGED)})
    table = table._replace(notes=(evil,))
    section = report.Section(evil, [table], [report.Picture(tmp_path / "a.png", evil)])
    record = {"command": f"gmm-jax demo {evil}", "versions": {"jax": "1.0", evil: evil}, "seeds": [0, 1]}
    return report.write_html(tmp_path / "report.html", evil, f"{evil}\n\nsecond", [section], record).read_text()


def test_text_is_escaped_everywhere(page):
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10
    assert 'alt="&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;"' in page


def test_a_report_loads_nothing_from_anywhere(page):
    assert not re.search(r"(https?:)?//[a-z]", page.replace("// Tables", ""))
    assert not re.search(r"<(link|iframe|object|embed|base)\b|@import|url\(", page)
    assert "default-src 'none'" in page
    assert re.search(r'<img src="data:image/png;base64,', page)


def test_a_report_holds_numbers_and_the_command(page):
    assert "0.720 ± 0.010" in page
    assert "gmm-jax demo" in page
    assert "−1.000" in page  # a true minus sign
    assert "second</p>" in page


def test_every_table_says_which_command_made_it_by_which_commit_and_when(tmp_path):
    tables = [report.Table(("a",), (("1",),)), report.Table(("b",), (("2",),))]
    sections = [report.Section("first", tables=tables), report.Section("second", tables=tables[:1])]
    record = {"command": "gmm-jax compare x", "ended": "2026-01-02T00"}

    def lines(record):
        text = report.write_html(tmp_path / "r.html", "t", "s", sections, record).read_text()
        return re.findall(r"</table></div>\n<p class=\"notes\">Made by <code>(.*?)</code>; (.*?)\.</p>", text)

    assert (
        lines(record | {"made by": ["2 rows: abc, 2026-01-01", "1 rows: def"]})
        == [("gmm-jax compare x", "2 rows: abc, 2026-01-01; 1 rows: def")] * 3
    )
    assert lines({"command": "x"}) == [("x", "commit not known")] * 3
    assert lines({}) == []


def test_the_configuration_is_text_without_brackets_of_python(tmp_path):
    grid = {"problems": ["course_2d", "crossing"], "n": [], "seeds": 3, "tol": 1e-9, "known": None}
    record = {"command": "c", "config": {"grid": grid, "workers": 2}, "runs": ["a, b", "c"]}
    page = report.write_html(tmp_path / "r.html", "t", "s", [], record).read_text()
    assert "<dd>grid (problems course_2d, crossing; seeds 3; tol 1e-09) · workers 2</dd>" in page
    assert "<dd>a, b; c</dd>" in page


def test_long_texts_wrap_and_numbers_do_not(tmp_path):
    table = report.Table(("method", "reason"), (("em", "a long reason " * 10), ("nuts", "1.0")))
    page = report.write_html(tmp_path / "r.html", "t", "s", [report.Section("x", tables=[table])]).read_text()
    assert page.count('<td class="text">') == 1
    assert re.search(r"td\.text \{[^}]*white-space: normal", page)


def test_pictures_of_a_folder_with_the_captions_of_its_run(tmp_path):
    for name in ("b.png", "a_b.gif", "c.png", "rows.csv"):
        (tmp_path / name).write_bytes(PIXEL)
    found = report.pictures_in(tmp_path, {"pictures": {"b.png": "The data."}}, [report.Picture("x/c.png", "drawn")])
    # as they were drawn, then others by name
    assert [(picture.path.name, picture.caption) for picture in found] == [("b.png", "The data."), ("a_b.gif", "a b.")]


def test_a_picture_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    section = report.Section("x", figures=[report.Picture(tmp_path / "a.svg", "x")])
    with pytest.raises(ValueError, match=r"a\.svg"):
        report.write_html(tmp_path / "r.html", "t", "s", [section])
    assert not (tmp_path / "r.html").exists()


def test_a_report_drawn_again_shows_the_pictures_of_the_folder_and_promises_no_quartiles_that_are_not_there(tmp_path):
    row = {"problem": "course_2d", "case": "Case II", "method": "em", "seed": 0, "status": "CONVERGED", "kl": 0.01}
    store.write_rows(tmp_path, [row | {"reason": ""}])
    run = {"command": "gmm-jax demo", "pictures": {"course_2d_data.png": "The samples."}}
    store.write_json(tmp_path / "provenance.json", [run])
    (tmp_path / "course_2d_data.png").write_bytes(PIXEL)
    page = compare.write_report(tmp_path).read_text()
    assert "<figcaption>The samples.</figcaption>" in page
    assert page.count("KL from truth, every trial.</figcaption>") == 1  # drawn anew, not twice
    assert "Of one data set;" in page
    three = [row | {"seed": seed, "kl": 0.01 * (seed + 1), "reason": ""} for seed in range(3)]
    assert "[" in compare.summary_table(three).rows[0][3]
    assert compare.summary_table(three).notes[0].startswith("Medians and [quartiles] over 3 seeds;")


def test_the_policy_of_a_page_allows_its_own_style_and_script_and_nothing_else(page):
    (style,) = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    for kind, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page
    assert not re.search(r"<[^>]+ (style|on\w+)=", page.replace(script, ""))


def test_the_first_section_is_seen_at_once_and_the_others_fold_open_where_the_navigation_leads(tmp_path):
    table = report.Table(("a",), (("1",),))
    sections = [report.Section(name, tables=[table]) for name in ("first", "second", "third")]
    page = report.write_html(tmp_path / "r.html", "t", "Why? Yes. And more.", sections, {"command": "c"}).read_text()
    before, _, folded = page.partition("<details")
    assert "first" in before.partition("<main")[2]
    assert re.findall(r"<summary><h2>(.*?)</h2>", "<details" + folded) == ["second", "third", "How to repeat this"]
    links = re.findall(r'<a href="#([\w-]+)">', page)
    assert len(links) == 4
    assert all(f'id="{link}"' in page for link in links)


@pytest.mark.parametrize(
    ("summary", "leads"),
    [
        ("Is it so?\n\nYes: 1.5 nats. The rest.", [("question", "Is it so?"), ("verdict", "Yes: 1.5 nats.")]),
        ("No end", [("verdict", "No end")]),
        ("«Is it?»\n\nfirst line\nsecond", [("question", "«Is it?»"), ("verdict", "first line")]),
    ],
)
def test_the_first_sentence_of_a_paragraph_stands_out(tmp_path, summary, leads):
    page = report.write_html(tmp_path / "r.html", "t", summary, []).read_text()
    assert re.findall(r'<p class="(question|verdict)">(.*?)</p>', page) == leads


def test_of_an_animation_every_frame_is_on_the_page_and_the_last_is_seen(tmp_path):
    frames = [np.full((2, 2, 3), shade, np.uint8) for shade in (0, 100, 255)]
    write_gif(tmp_path / "a.gif", frames)
    section = report.Section("x", figures=[report.Picture(tmp_path / "a.gif", "Steps.")])
    page = report.write_html(tmp_path / "r.html", "t", "s", [section]).read_text()
    found = re.findall(r'<img src="data:image/png;base64,(.*?)" alt="Steps. Picture (\d) of 3."( hidden)?>', page)
    assert [(number, bool(hidden)) for _, number, hidden in found] == [("1", True), ("2", True), ("3", False)]
    shades = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))[0, 0] for text, *_ in found]
    np.testing.assert_allclose(shades, [0, 100, 255], atol=8)


def trial(method, seed, kl, case="Case II", status="CONVERGED", problem="course_2d"):
    row = {"problem": problem, "case": case, "method": method, "seed": seed, "status": status, "kl": kl, "reason": ""}
    mixture = store.mixture_record(TRUTH)
    return row | {"seconds_trace": 0.0, "seconds_compile": 0.0, "truth": mixture, "estimate": mixture}


def test_the_verdict_is_the_method_whose_median_is_lowest_and_never_the_oracle():
    kls = {"oracle": (0.0, 0.0, 0.0), "em": (0.1, 0.2, 9.0), "gibbs": (0.15, 0.3, 0.35)}
    rows = [trial(method, seed, kl) for method, values in kls.items() for seed, kl in enumerate(values)]
    rows[-1] = trial("gibbs", 2, None, status="FAILED")
    said = compare.verdict(rows)
    assert said == "Nearest to the truth: em on 1 of 1 problems. 8 of 9 trials ended ok."
    table = compare.nearness_table(rows)
    assert table.columns == ("problem", "case", "oracle", "em", "gibbs")
    assert table.rows[0][3].startswith("0.2 [")
    assert table.rows[0][4] == "0.225 †"
    assert "no fit" in compare.verdict([trial("em", 0, None, status="FAILED")])


def test_each_picture_of_a_folder_is_shown_once_under_its_own_case(tmp_path):
    store.write_rows(tmp_path, [trial("em", 0, 0.1, case) for case in ("Case I", "Case II")])
    names = [f"course_2d_case_{case}_{what}.png" for case in ("i", "ii") for what in ("log_likelihood", "recovered")]
    names += ["course_2d_data.png"]
    store.write_json(tmp_path / "provenance.json", [{"command": "c", "pictures": {name: name for name in names}}])
    for name in names:
        (tmp_path / name).write_bytes(PIXEL)
    page = compare.write_report(tmp_path).read_text()
    first, *parts = page.partition("<main")[2].split("<details id=")
    captions = [re.findall(r"<figcaption>(\S+\.png)</figcaption>", part) for part in (first, *parts)]
    headings = [re.search(r"<h2>(.*?)</h2>", part).group(1) for part in parts]
    assert headings[:2] == ["course_2d, Case I: φ and Σ known, learn μ", "course_2d, Case II: nothing known"]
    assert captions[:3] == [[names[3]], names[:2], names[2:4]]  # the picture that leads is with its case, too
    assert [each for each in captions[3:] if each] == [["course_2d_data.png"]]
    assert page.count("μ₁₁") == 2  # a table of numbers for each case


@pytest.mark.parametrize("known", [(), ("weights",), ("weights", "covariances"), ("means",)])
def test_what_is_known_can_be_read_from_the_name_of_a_case(known):
    assert known_in(Cell("course_2d", known).case) == known
