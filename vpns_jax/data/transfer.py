"""Sends batches from the host to the devices, some batches ahead of the computation."""

import collections
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import jax

from vpns_jax.data.stream import Stream

T = TypeVar("T")


class DeviceStream(Iterator[T], Generic[T]):
    """The batches of a host stream as global arrays, sent to the devices ahead of their use.

    Its state is that of the next batch it returns, not of the batch that the host is preparing.
    """

    def __init__(self, stream: Stream[T], sharding: jax.sharding.Sharding, *, ahead: int = 2) -> None:
        """Takes over a host stream.

        Args:
          stream: the stream with this process's share of the batches.
          sharding: the sharding of every array, which splits the first axis.
          ahead: how many batches wait on the devices.
        """
        self._stream, self._sharding, self._ahead = stream, sharding, ahead
        self._waiting: collections.deque[tuple[dict[str, int], T]] = collections.deque()

    def __next__(self) -> T:
        self._fill(self._ahead + 1)
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()[1]

    def __enter__(self) -> "DeviceStream[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the host stream's workers. This stream can still be read; it continues with the next batch."""
        self._stream.close()

    def get_state(self) -> dict[str, int]:
        """The state of the next batch; see `Stream.get_state`."""
        return self._waiting[0][0] if self._waiting else self._stream.get_state()

    def set_state(self, state: dict[str, int]) -> None:
        """Continues where another stream was; see `Stream.set_state`."""
        self._stream.set_state(state)
        self._waiting.clear()

    def _fill(self, count: int) -> None:
        while len(self._waiting) < count:
            state = self._stream.get_state()
            try:
                batch = next(self._stream)
            except StopIteration:
                return
            self._waiting.append((state, jax.tree.map(self._send, batch)))

    def _send(self, array: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(self._sharding, array)
