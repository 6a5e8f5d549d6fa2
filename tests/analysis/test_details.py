"""The second table and its sentence, worked by hand."""

from tests.analysis import samples
from tests.analysis.test_report import read
from vpns_jax.analysis import details
from vpns_jax.analysis.report import write_report


def summary():
    """Adds times to a mask at 80% and to the two seeds of VPNs at 95%, of which one is faster; HYDRA has none."""
    extended = samples.summary()
    # Only these have masks of channels.
    for cell, left in zip(extended["cells"][0:2], (1_000_000, 1_500_000), strict=True):
        cell["shrunk"] = {"multiply_adds": {"dense": 10_000_000, "shrunk": left}}
    # As many cells of an older version were not timed.
    extended["cells"][0]["shrunk"]["latency"] = {
        "dense": 0.012,
        "shrunk": 0.008,
        "speedup": 1.5,
        "least": 1.4,
        "most": 1.55,
    }
    for cell, masked, speedup in zip(extended["cells"][:2], (1_000_000, 3_000_000), (1.01, 1.25), strict=True):
        _add(cell, masked, speedup)
    _add(extended["cells"][3], 4_000_000, 0.98)
    return extended


def _add(cell, masked, speedup):
    cell["multiply_adds"] = {
        "dense": 10_000_000,
        "masked": masked,
        "dense_without_head": 8_000_000,
        "masked_without_head": masked // 2,
    }
    cell["calibration_error"] = {"plain": 0.0312, "prompted": 0.0208}
    cell["latency"] = {"dense": 0.0123, "masked": 0.0121, "speedup": speedup, "faster": speedup > 1.2}
    cell["latency"] |= {"least": speedup - 0.1, "most": speedup + 0.1, "pairs": 9}


def test_table():
    dense, vpns, hydra, many, _ = details.details_cells(summary())
    assert vpns == ("vpns", "80%", "4", "40.00", "25.00", "—", "2.1", "3.1", "12.1", "12.3", "—")
    assert many == ("vpns", "95%", "2", "20.00", "12.50", "12.50", "2.1", "3.1", "12.1", "12.3", "8")
    assert hydra == ("hydra", "80%", *["—"] * 9)
    assert dense[2:] == ("—",) * 9
    assert len(vpns) == len(details.HEADINGS)


def test_what_is_no_faster_is_said_plainly():
    extended = summary()
    assert details.speed_line(extended) == (
        "These 2 masks do not make this device faster: dense over masked time is 0.98 to 1.01 in the median, 0.88 to "
        "1.11 in single pairs of batches. "
        "Faster in every pair of batches timed: vpns-s95-seed9 by a factor of 1.25. "
        "Without their dead channels, dense over their time in the median (and in single pairs of batches) is: "
        "vpns-s95-seed7 1.50 (1.40 to 1.55)."
    )
    extended["cells"] = extended["cells"][3:]
    assert details.speed_line(extended) == (
        "This mask does not make this device faster: dense over masked time is 0.98 in the median, 0.88 to 1.08 in "
        "single pairs of batches."
    )
    assert details.speed_line(samples.summary()) == ""
    for cell in extended["cells"]:
        if cell.get("latency"):
            cell["latency"]["faster"] = True
    assert details.speed_line(extended).startswith("Faster in every pair of batches timed: ")


def test_the_report_has_both(tmp_path):
    extended = summary()
    _, page = read(write_report(extended, [], tmp_path / "report.html"))
    assert details.speed_line(extended) in page.text
    assert (
        "This mask does not make this device faster: 12.1 ms a batch masked, 12.3 ms dense; within 9 pairs dense over "
        "masked is 0.98 (0.88 to 1.08)."
    ) in page.text
    assert "all|10,000,000|4,000,000|without head|8,000,000|2,000,000" in "|".join(page.text)
    assert "test, best|2.1|3.1" in "|".join(page.text)
