"""The report is one well-formed page that needs no other file."""

import base64
from html.parser import HTMLParser

import pytest

from tests.analysis import samples
from vpns_jax.analysis.report import markdown_table, text_table, write_report
from vpns_jax.errors import UserError

HOSTILE = '<script>alert("x")</script>&amp;'
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def figures(tmp_path):
    drawn = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.png"
        path.write_bytes(name.encode())
        drawn.append((f"The {name}", f"{name} caption", path))
    return drawn


def read(path):
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_holds_table_facts_and_each_figure_once(tmp_path, figures):
    text, page = read(write_report(samples.summary(), figures, tmp_path / "report.html"))
    for name in ("first", "second"):
        assert text.count(base64.b64encode(name.encode()).decode()) == 1
        assert page.text.count(f"{name} caption") == 1
    assert page.tags.count("img") == 2
    expected = ("75.0 ± 7.1", "test prompted %", "resnet18, digits, cpu, paper protocol", "0.10.2", "87.5%")
    assert set(expected) <= set(page.text)
    assert page.text.count("vpns-s95-seed9") == 1
    assert list(tmp_path.glob("*.tmp")) == []


def test_the_page_fetches_nothing(tmp_path, figures):
    text, page = read(write_report(samples.summary(), figures, tmp_path / "report.html"))
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith("data:") for value in sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "http" not in text
    assert "url(" not in text
    assert ("name", "viewport") in page.attributes


def test_hostile_names_are_text(tmp_path, figures):
    summary = samples.summary()
    for key in ("name", "command", "dataset", "model", "device"):
        summary[key] = HOSTILE
    summary["versions"] = {HOSTILE: HOSTILE}
    for cell in summary["cells"]:
        cell.update(cell=HOSTILE, method=HOSTILE, collapsed=[HOSTILE])
        cell["layers"][0]["path"] = HOSTILE
    drawn = [(HOSTILE, HOSTILE, path) for _, _, path in figures]
    _, page = read(write_report(summary, drawn, tmp_path / "report.html"))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 10
    assert ("alt", HOSTILE) in page.attributes


def test_a_cell_says_all_its_accuracies_and_its_work_by_stage(tmp_path):
    _, page = read(write_report(samples.summary(), [], tmp_path / "report.html"))
    start = page.text.index("vpns-s80-seed7")
    cell = page.text[start : page.text.index("hydra-s80-seed7")]
    lines = "validation, best on validation (epoch 5)|96.0|91.0|validation, last|94.0|89.0|"
    lines += "test, best on validation (epoch 5)|95.0|90.0|test, last|93.0|88.0"
    assert lines in "|".join(cell)
    assert "prune|1,000|2,000|3.2|retrain|207|500|3.0" in "|".join(cell)
    assert "conv/kernel|3,000|600|20.00" in "|".join(cell)


def test_collapsed_layers_are_listed(tmp_path):
    summary = samples.summary()
    _, page = read(write_report(summary, [], tmp_path / "report.html"))
    assert "Collapsed layers" not in page.text
    summary["cells"][0]["collapsed"] = ["conv/kernel"]
    _, page = read(write_report(summary, [], tmp_path / "report.html"))
    assert "Collapsed layers" in page.text
    assert "vpns-s95-seed7: layer conv/kernel keeps none of its 3,000 weights" in page.text


def test_a_note_is_no_collapse(tmp_path):
    summary = samples.summary()
    summary["cells"][0]["notes"] = ["target macs:0.5: the mask has 49%"]
    _, page = read(write_report(summary, [], tmp_path / "report.html"))
    assert "No layer collapsed in any cell reported here." in page.text
    place = page.text.index("Notes")
    assert "vpns-s95-seed7: target macs:0.5: the mask has 49%" in page.text[place:]


def test_a_bare_summary_is_reported_too(tmp_path):
    bare = {"name": "stopped", "cells": [{"cell": "vpns", "method": "vpns", "density": 0.2, "seed": 7}]}
    _, page = read(write_report(bare, [], tmp_path / "report.html"))
    assert "—" in page.text
    assert text_table(bare).splitlines()[-1].split() == ["vpns", "80%", "1", *"————————"]
    assert "| vpns | 80% | 1 |" in markdown_table(bare)


def test_it_ends_with_what_to_do(tmp_path):
    _, page = read(write_report(samples.summary(), [], tmp_path / "report.html", commands=[("Run:", "a 'b c' <d>")]))
    assert [text for text in page.text if text.strip()][-3:] == ["What to do with it", "Run:", "a 'b c' <d>"]
    _, page = read(write_report(samples.summary(), [], tmp_path / "report.html"))
    assert "What to do with it" not in page.text


def test_a_missing_figure_is_named_and_the_old_report_stays(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(UserError, match=r"figure '.*none\.png' cannot be read: No such file"):
        write_report(samples.summary(), [("a", "b", tmp_path / "none.png")], path)
    assert path.read_text() == "old"
