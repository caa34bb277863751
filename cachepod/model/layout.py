"""Sizes that shape new snapshots; how old ones are read does not depend on them."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

#: Plain bytes of one chunk, at most. Larger frames gain under 2% on the torch stack and cost a
#: reader memory; smaller ones lose more.
CHUNK_SIZE = 4 * MIB

#: Files up to this size are run together into chunks; larger ones are cut at multiples of
#: CHUNK_SIZE.
SMALL_FILE = 1 * MIB

#: A run of small files may end once it is this long, where the path of the last file says so.
RUN_MINIMUM = 1 * MIB

#: One file in so many ends a run. Deciding by path keeps the later boundaries where they were
#: when a file comes or goes.
RUN_BOUNDARY = 64

#: A pack is closed once it holds this much.
PACK_SIZE = 128 * MIB

#: Chunks of one big file that one worker takes at a time when publishing.
SEGMENT_CHUNKS = 32

#: A chunk is stored raw unless compression takes at least this share off it.
WORTHWHILE = 0.05

#: A file that claims more is not believed.
MAX_FILE_SIZE = 1 << 44

#: Directories within directories; a path of PATH_MAX bytes can name no more.
MAX_DEPTH = 2048

#: A manifest that claims more plain bytes is not believed (about ten million files).
MAX_MANIFEST_SIZE = 1 << 30

#: Bounds of what may be allocated for the parts of a manifest before they are checked.
MAX_SUMMARY_SIZE = 64 * MIB
