"""Parts of `benchmarks.accelerator` that need no accelerator, and no time."""

import time

from benchmarks.accelerator.rows import Row


def rows(*, tiny, last):
    yield Row("Numbers", {"what": "first", "ms": 1.5})
    yield Row("Numbers", {"what": "second", "ms": 2.5, "tiny": tiny})
    yield Row("Numbers", "A remark.")
    if last == "breaks":
        raise ValueError("this | part\nbreaks")
    if last == "hangs":
        time.sleep(100)
