"""Tensors for the tests of weight files, tensors of torch that lie about themselves, and a pickle that runs code."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.models import torch_files

TENSORS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(7, np.int64),
    "half": np.ones(3, np.float16),
    "empty": np.zeros((0, 2), np.float32),
}


class Evil:
    """An object that creates a file if an ordinary unpickler loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def lying(**lies: Any) -> dict[str, Any]:
    return {"w": torch_files.tensor_call(TENSORS["w"], "0", False, **lies)}
