"""Writing a restored file: all of the bytes, and past the page cache as far as that can be."""

from __future__ import annotations

import errno
import os

from cachepod.stores.pastcache import set_direct

#: To what memory, offset and size must be aligned for O_DIRECT.
BLOCK = 4096


class OutFile:
    """A file being written at offsets, with O_DIRECT as far as alignment allows."""

    def __init__(self, descriptor: int, direct: bool) -> None:
        self._descriptor = descriptor
        self._able = direct
        self._on = direct

    def write(self, data: memoryview, offset: int, *, aligned: bool) -> None:
        """*aligned* says that *data* begins at a page's boundary in memory."""
        body = len(data) & -BLOCK if self._able and aligned and offset % BLOCK == 0 else 0
        if body:
            self._switch(True)
            try:
                pwrite_all(self._descriptor, data[:body], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._able, body = False, 0
        if body < len(data):
            self._switch(False)
            pwrite_all(self._descriptor, data[body:], offset + body)

    def _switch(self, on: bool) -> None:
        if on != self._on:
            set_direct(self._descriptor, on)
            self._on = on


def write_all(descriptor: int, data: memoryview) -> None:
    """Write *data* where the file stands."""
    while data:
        data = data[os.write(descriptor, data) :]


def pwrite_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write *data* at *offset*."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count
