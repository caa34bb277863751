"""What the writers of a S3 store share: threads that send parts, and bodies that can be stopped."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from cachepod.stores.s3client import Service
from cachepod.stores.s3condition import Condition
from cachepod.stores.wrappers import Patience

_BLOCK = 256 * 1024


class Uploads:
    """
    What the writers of one store share.

    Args:
        part_size: Bytes of a part.

        at_once: Parts that may be on their way, or wait for it; each holds its bytes.

        patience: How often a part is tried.

        lock: For a name, a lock that keeps the look whether it is taken and the write together
            among the threads of this process.
    """

    def __init__(
        self,
        service: Service,
        condition: Condition,
        patience: Patience,
        part_size: int,
        at_once: int,
        lock: Callable[[str], AbstractContextManager[Any]],
    ) -> None:
        self.service = service
        self.condition = condition
        self.patience = patience
        self.part_size = part_size
        self.at_once = at_once
        self.lock = lock
        self.pid = os.getpid()  # a forked child has none of the threads
        self._slots = threading.BoundedSemaphore(at_once)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="upload")

    def submit(self, send: Callable[[], object]) -> Future[object]:
        """Have *send* called by a thread; waits while too many parts are on their way."""
        self._slots.acquire()
        try:
            future = self._pool.submit(send)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(lambda _: self._slots.release())
        return future


class Blocks(io.RawIOBase):
    """
    A large body as urllib3 and botocore want it: read piece by piece, as often as need be.

    A body of bytes would have to be sent whole within one timeout, and a file's in pieces of
    16 KiB. So a read gives more than was asked for, as views, without a copy.
    """

    def __init__(self, data: bytearray, is_stopped: Callable[[], bool]) -> None:
        self._view = memoryview(data)
        self._is_stopped = is_stopped
        self._offset = 0

    def __len__(self) -> int:
        return len(self._view)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> Any:
        if self._is_stopped():
            raise OSError("the object is not being written any more")
        piece = self._view[self._offset : self._offset + max(size or 0, _BLOCK)]
        self._offset += len(piece)
        return piece

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: len(self._view)}[whence]
        self._offset = start + offset
        return self._offset
