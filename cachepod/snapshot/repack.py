"""
Packs that are mostly dead are written anew without what nobody needs.

It is a publish in small: a pin names everything that the manifests concerned need, the live chunks
go into new packs as they are, and then each manifest is replaced by one that names the new places.
The old packs are needed by nobody then. Killed anywhere, it leaves manifests that are whole, old or
new ones, and packs that a prune finds.

A manifest is replaced only if it is still the one that the plan was made from. Between that look
and the replacement somebody may publish the key anew; then the older snapshot is in its place
again, whole, and nothing is worse than before.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cachepod.errors import CorruptObject, NewerFormat, ObjectMissing, PinLost, Untrusted
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import ChunkTable, Manifest
from cachepod.model.pack import StoredChunk
from cachepod.model.signature import Signer
from cachepod.model.tables import PackInfo
from cachepod.snapshot.beat import PERIOD, Clock, boottime
from cachepod.snapshot.census import StoredSnapshot, read_digest
from cachepod.snapshot.chunks import ChunkAt, ChunkReader
from cachepod.snapshot.packing import ChunkIndex, Packer, Place, discard
from cachepod.snapshot.pins import Pin, hold_pin
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.signing import Keyring
from cachepod.snapshot.spent import Watch
from cachepod.stores.base import PruneStore


def repack(
    store: PruneStore,
    packs: Iterable[str],
    snapshots: Sequence[StoredSnapshot],
    progress: Progress,
    *,
    keyring: Keyring | None = None,
    clock: Clock = boottime,
    period: float = PERIOD,
) -> int:
    """
    Write the live chunks of *packs* anew, and let *snapshots* name the new packs.

    Whether the old packs are needed by nobody now, the manifests tell. What is damaged or changes
    meanwhile stays as it is.

    Args:
        snapshots: All that need one of *packs*.

        keyring: Signs anew what it trusts. Other manifests that are signed stay as they are, and
            those that are not signed stay unsigned.

    Returns:
        Bytes that the store has more by it, while the old packs are there.

    Raises:
        SpaceExhausted, StoreUnreachable: As the store has it; manifests that were replaced by then
            stay so.
    """
    with hold_pin(store, clock=clock, period=period) as pin:
        run = _Repack(store, pin, frozenset(packs), keyring)
        try:
            run.copy(snapshots, progress)
            run.replace(snapshots)
        finally:
            discard(store, run.written.keys() - run.named)
        return run.grown + sum(size for pack, size in run.written.items() if pack in run.named)


class _Repack:
    def __init__(
        self, store: PruneStore, pin: Pin, packs: frozenset[str], keyring: Keyring | None
    ) -> None:
        self._store = store
        self._pin = pin
        self._old = packs
        self._keyring = keyring
        self._places: dict[bytes, Place] = {}
        self._condemned: frozenset[str] = frozenset()
        self.written: dict[str, int] = {}
        self.named: set[str] = set()
        self.grown = 0

    def copy(self, snapshots: Sequence[StoredSnapshot], progress: Progress) -> None:
        """The live chunks into new packs."""
        chunks: dict[str, dict[int, StoredChunk]] = {pack: {} for pack in self._old}
        relied: set[str] = set()
        for each in snapshots:
            table = self._table(each)
            if table is None:
                continue
            relied.update(pack.id for pack in table.packs)
            for pack, chunk in _rows(table):
                if pack in self._old:
                    chunks[pack][chunk.offset] = chunk
        self._condemned = condemned = self._pin.rely_on(relied)
        packer = Packer(
            self._store, ChunkIndex(), 1, self._pin.pack_id, self.written.__setitem__, Watch()
        )
        try:
            reader = ChunkReader(self._store)
            for pack in sorted(self._old - condemned):
                self._copy_pack(packer, reader, pack, chunks[pack], progress)
            packer.finish()
        except BaseException:
            packer.abort()
            raise

    def _copy_pack(
        self,
        packer: Packer,
        reader: ChunkReader,
        pack: str,
        chunks: dict[int, StoredChunk],
        progress: Progress,
    ) -> None:
        for _, chunk in sorted(chunks.items()):
            try:
                frame = reader.fetch(pack, chunk.offset, chunk.stored)
                # Down to its id: from here on it stands for that chunk in other snapshots too.
                reader.plain(pack, _at(chunk), frame)
            except (ObjectMissing, CorruptObject):
                return  # what needs it is damaged: that is for a restore to find, and verify
            self._places[chunk.id] = packer.copy(chunk, frame)
            progress.advance(0, chunk.stored)

    def replace(self, snapshots: Sequence[StoredSnapshot]) -> None:
        """The new manifests in place of the old ones."""
        for each in snapshots:
            try:
                data = self._store.read(each.name, limit=MAX_MANIFEST_SIZE)
                manifest = Manifest.decode(data, name=each.name)
            except (ObjectMissing, CorruptObject, NewerFormat):
                continue
            moved = self._moved(manifest) if manifest.digest == each.digest else None
            if moved is None:
                continue
            sign: Signer | None = None
            if manifest.signature is not None:
                if not self._is_ours(each, data):
                    continue
                assert self._keyring is not None
                sign = self._keyring.sign
            new = moved.encode(sign)
            needed = {pack.id: pack.size for pack in moved.packs}
            if self._condemned & needed.keys():
                continue  # another prune is dropping it
            try:
                self._pin.confirm(needed)
            except PinLost:
                return
            if read_digest(self._store, each.name) == each.digest:
                # Beforehand: a write may be carried out and fail all the same.
                self.named.update(needed)
                self._store.replace(each.name, new)
                self.grown += len(new) - len(data)

    def _is_ours(self, snapshot: StoredSnapshot, data: bytes) -> bool:
        """Whether a signed manifest is trusted here, so that it may be signed here."""
        if self._keyring is None or self._keyring.own is None:
            return False
        try:
            self._keyring.check(snapshot.key, data, name=snapshot.name)
        except Untrusted:
            return False
        return True

    def _moved(self, manifest: Manifest) -> Manifest | None:
        """*manifest* with its chunks where they lie now; None if one of them could not be moved."""
        chunks = manifest.chunks
        numbers, offset = array("I", chunks.pack), array("I", chunks.offset)
        stored, encoding = array("I", chunks.stored), array("B", chunks.encoding)
        checks = bytearray(chunks.checks)
        packs = {pack.id: pack for pack in manifest.packs}
        order: dict[str, int] = {}
        for row in range(len(chunks)):
            pack = manifest.packs[chunks.pack[row]].id
            if pack in self._old:
                place = self._places.get(chunks.id(row))
                if place is None or place.raw != chunks.raw[row]:
                    return None
                pack = place.pack
                packs[pack] = PackInfo(pack, self.written[pack])
                offset[row], stored[row] = place.offset, place.stored
                encoding[row] = place.encoding
                checks[row * 16 : row * 16 + 16] = place.check
            numbers[row] = order.setdefault(pack, len(order))
        return replace(
            manifest,
            summary=replace(manifest.summary, stored=sum(stored)),
            chunks=replace(
                chunks,
                pack=numbers,
                offset=offset,
                stored=stored,
                encoding=encoding,
                checks=bytes(checks),
            ),
            packs=tuple(packs[pack] for pack in order),
        )

    def _table(self, snapshot: StoredSnapshot) -> ChunkTable | None:
        try:
            data = self._store.read(snapshot.name, limit=MAX_MANIFEST_SIZE)
            if Manifest.digest_of(data) != snapshot.digest:
                return None
            return ChunkTable.decode(data, name=snapshot.name)
        except (ObjectMissing, CorruptObject, NewerFormat):
            return None


def _at(chunk: StoredChunk) -> ChunkAt:
    return ChunkAt(chunk.offset, chunk.stored, chunk.raw, chunk.encoding, chunk.id, chunk.check)


def _rows(table: ChunkTable) -> Iterable[tuple[str, StoredChunk]]:
    chunks, packs = table.chunks, table.packs
    for row in range(len(chunks)):
        yield (
            packs[chunks.pack[row]].id,
            StoredChunk(
                chunks.id(row),
                chunks.check(row),
                chunks.offset[row],
                chunks.stored[row],
                chunks.raw[row],
                chunks.encoding[row],
            ),
        )
