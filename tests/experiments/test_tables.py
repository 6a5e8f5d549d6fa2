"""The tables of a sweep, with differences worked by hand."""

import csv
import io
import json
import math

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import figures, overlap, summaries, tables
from tests.analysis.samples import cell
from vpns_jax.analysis import comparison
from vpns_jax.errors import UserError


def summary():
    """Makes a summary in which VPNs is better than HYDRA by 1, 3 and 2 points at 90%, and by 2 and -2 points at 95%."""
    cells = []
    for seed, hydra, vpns in ((7, 0.90, 0.91), (9, 0.91, 0.94), (17, 0.92, 0.94)):
        cells += [cell("hydra", 0.1, seed, hydra, None), cell("vpns", 0.1, seed, 0.5, vpns)]
        cells += [cell("magnitude", 0.1, seed, hydra - 0.1, None)]
    for seed, hydra, vpns in ((7, 0.90, 0.92), (9, 0.90, 0.88)):
        cells += [cell("hydra", 0.05, seed, hydra, None), cell("vpns", 0.05, seed, 0.5, vpns)]
    return {"name": "sweep", "cells": [*cells, cell("vpns", 0.05, 17, 0.5, 0.99)]}


def test_differences_are_paired_by_seed():
    differences = {(d.method, d.density): d for d in comparison.differences(summary(), "hydra")}
    vpns = differences["vpns", 0.1]
    assert (vpns.seeds, vpns.mean) == (3, pytest.approx(0.02))
    # Differences 1, 3, 2: standard deviation 1; Student's t with 2 degrees of freedom at 97.5% is 4.303.
    assert vpns.high - vpns.mean == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-5)
    assert vpns.verdict == "ties"
    # Only one method has seed 17 at 95%.
    assert (differences["vpns", 0.05].seeds, differences["vpns", 0.05].mean) == (2, pytest.approx(0.0))
    assert differences["magnitude", 0.1].verdict == "loses"
    assert ("hydra", 0.1) not in differences


def test_a_summary_written_by_hand_may_leave_out_what_a_cell_lacks(tmp_path):
    written = {key: cell("hydra", 0.1, 7, 0.9, None)[key] for key in ("cell", "method", "density", "seed")}
    written |= {"val": {"best": {"plain": 0.8}}, "test": {"best": {"plain": 0.7}}}
    (tmp_path / "summary.json").write_text(json.dumps({"name": "mine", "cells": [written]}))
    (read,) = summaries.read(tmp_path / "summary.json")["cells"]
    assert comparison.headline(read) == 0.7
    assert comparison.headline(read, split="val") == 0.8


def test_one_seed_has_no_interval():
    (difference,) = comparison.differences({"cells": [cell("a", 0.1, 7, 0.5, None), cell("b", 0.1, 7, 0.6, None)]}, "a")
    assert (difference.mean, difference.low, difference.verdict) == (pytest.approx(0.1), None, "?")


def test_the_files_hold_the_same_numbers(tmp_path):
    tables.write_tables(summary(), tmp_path, reference="hydra")
    rows = list(csv.reader(io.StringIO((tmp_path / "accuracy.csv").read_text())))
    assert rows[0] == ["method", "90%", "95%"]
    assert rows[1] == ["hydra", "91.0 ± 1.0", "90.0 ± 0.0"]
    assert rows[3] == ["magnitude", "81.0 ± 1.0", ""]
    markdown = (tmp_path / "accuracy.md").read_text().splitlines()
    assert markdown[0] == "| method | 90% | 95% |"
    assert markdown[2] == "| hydra | 91.0 ± 1.0 | 90.0 ± 0.0 |"
    latex = (tmp_path / "accuracy.tex").read_text().splitlines()
    assert latex[0] == r"\begin{tabular}{lrr}"
    assert r"hydra & 91.0 $\pm$ 1.0 & 90.0 $\pm$ 0.0 \\" in latex
    differences = list(csv.reader(io.StringIO((tmp_path / "differences.csv").read_text())))
    assert ["vpns", "90%", "3", "+2.00", "-0.48 to +4.48", "ties"] in differences


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match=r"summary\.json cannot be read"):
        summaries.read(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text(json.dumps({"cells": []}))
    with pytest.raises(UserError, match="holds no cells"):
        summaries.read(tmp_path / "summary.json")
    with pytest.raises(UserError, match=r"'snip'.*hydra, vpns, magnitude"):
        tables.write_tables(summary(), tmp_path, reference="snip")


def broken():
    """Summaries that tables and figures refuse: a field of a cell is missing or has another type."""
    fields = ("cell", "method", "density", "seed", "test", "test.best", "test.best.plain", "val.best.prompted")
    optional = ("layers", "layers.0.size", "seconds", "seconds.prune", "achieved_density", "mean_class_accuracy.plain")
    for field in (*fields, *optional):
        for value in (
            ("x", [1], {"a": []}, -1, True, 1e999, 10**400) if field not in ("cell", "method") else (1, [], {}, True)
        ):
            yield field, value
    for field in fields[:6]:
        yield field, None


@pytest.mark.slow
@pytest.mark.parametrize("program", [tables, figures, overlap])
def test_a_broken_summary_is_one_line(program, tmp_path, capsys):
    flag = "workdir" if program is overlap else "folder"
    path = tmp_path / "summary.json"
    texts = ["[" * 10**5, "\xff", "[]", "3", '{"cells": 3}', '{"cells": [3]}', '{"cells": {}}', '{"cells": [[]]}']
    for field, value in broken():
        whole = summary()
        branch = whole["cells"][1]
        *groups, key = [int(part) if part.isdigit() else part for part in field.split(".")]
        for group in groups:
            branch = branch[group] if isinstance(group, int) else branch.setdefault(group, {})
        branch[key] = value
        texts.append(json.dumps(whole))
        if field in ("cell", "method", "density", "seed"):
            del branch[key]
            texts.append(json.dumps(whole))
    for text in texts:
        path.write_bytes(text.encode("latin-1"))
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            assert program.main(["program", f"--{flag}={tmp_path}"]) == 2, text[:300]
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert len(err) < 420
        assert "summary.json" in err


def test_a_folder_that_is_no_path(capsys):
    for folder in ("", "~nosuchuser", "a\nb"):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            assert tables.main(["tables", f"--folder={folder}"]) == 2
        assert capsys.readouterr().err.startswith("error: --folder")
