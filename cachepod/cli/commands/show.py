"""``cachepod show``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cachepod.cli.commands.ls import entry
from cachepod.cli.options import STORE, Invocation, complete_key, subcommand
from cachepod.cli.render import Outcome, age, count, duration, moment, printable, table
from cachepod.cli.snapshots import find_manifest
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_UNREACHABLE, human_bytes

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.model.manifest import Manifest
    from cachepod.model.signature import Signature
    from cachepod.model.summary import TreeInfo
    from cachepod.stores.base import WriteStore


@subcommand(
    "show",
    *STORE,
    "timeout",
    expired=lambda seconds: timed_out("show", seconds, EXIT_UNREACHABLE),
)
@click.argument("key", shell_complete=complete_key)
def command(call: Invocation, key: str) -> Outcome:
    """Show the snapshot KEY: its inputs, trees and distributions, with their sizes."""
    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout)
    store, manifest = find_manifest(call.stores(settings), key)
    summary = manifest.summary
    trusted = _trusted(call, settings, store, key)
    trees, distributions = sizes(manifest)
    document = entry(summary)
    document["inputs"] = dict(sorted(summary.fingerprint.inputs.items()))
    document["trees"] = [
        {**tree.to_json(), "files": files, "size": size}
        for tree, (files, size) in zip(summary.trees, trees, strict=True)
    ]
    document["distributions"] = [
        {"name": each.name, "version": each.version, "files": files, "size": size}
        for each, (files, size) in zip(summary.distributions, distributions, strict=True)
    ]
    signature = manifest.signature
    document["signed_by"] = signature.key_id.hex() if signature else None
    document["trusted"] = trusted
    document["chunks"] = len(manifest.chunks)
    document["packs"] = len(manifest.packs)
    creator = ", ".join(f"{name} {value}" for name, value in sorted(summary.creator.items()))
    facts = [
        ("key", summary.key),
        ("created", f"{moment(summary.created)} ({age(summary.created)})"),
        ("creator", creator),
        ("signature", _signature(signature, trusted)),
        ("size", f"{human_bytes(summary.size)} in {count(summary.files, 'file')}"),
        (
            "stored",
            f"{human_bytes(summary.stored)} in {count(len(manifest.chunks), 'chunk')} "
            f"of {count(len(manifest.packs), 'pack')}",
        ),
    ]
    parts = [
        table(("SNAPSHOT", ""), facts),
        table(
            ("TREE", "CAPTURED FROM", "FILES", "SIZE"),
            [
                (tree.name, _captured_from(tree), f"{files:,}", human_bytes(size))
                for tree, (files, size) in zip(summary.trees, trees, strict=True)
            ],
            right="FILES SIZE",
        ),
        table(("INPUT", "VALUE"), sorted(summary.fingerprint.inputs.items())),
    ]
    if distributions:
        biggest = sorted(
            zip(summary.distributions, distributions, strict=True),
            key=lambda pair: (-pair[1][1], pair[0].name),
        )
        rows = [
            (each.name, each.version, f"{files:,}", human_bytes(size))
            for each, (files, size) in biggest
        ]
        parts.append(table(("DISTRIBUTION", "VERSION", "FILES", "SIZE"), rows, "FILES SIZE"))
    return Outcome(
        document=document,
        text="\n\n".join(parts),
        summary=(
            f"{summary.key}: {count(len(summary.distributions), 'distribution')}, "
            f"{duration(time.monotonic() - started)}"
        ),
    )


def sizes(manifest: Manifest) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Files and bytes of every tree, and of every distribution, in the summary's order."""
    from cachepod.model.tables import Kind

    entries = manifest.entries
    roots = len(manifest.summary.trees)
    trees = [[0, 0] for _ in range(roots)]
    owners = [[0, 0] for _ in range(len(manifest.summary.distributions) + 1)]
    tree_of: list[int] = []
    for row, (kind, parent, size, owner) in enumerate(
        zip(entries.kind, entries.parent, entries.size, entries.owner, strict=True)
    ):
        tree = row if row < roots else tree_of[parent]
        tree_of.append(tree)
        if kind in (Kind.FILE, Kind.HARDLINK):
            plain = size if kind == Kind.FILE else 0
            for total in (trees[tree], owners[owner]):
                total[0] += 1
                total[1] += plain
    return (
        [(files, size) for files, size in trees],
        [(files, size) for files, size in owners[1:]],
    )


def _trusted(call: Invocation, settings: Settings, store: WriteStore, key: str) -> bool | None:
    """Whether a restore would believe the snapshot; None where it believes all."""
    if not settings.signed:
        return None
    from cachepod.environment.trust import keyring_of
    from cachepod.model.names import manifest_name
    from cachepod.snapshot.signing import vouched

    return vouched(store, keyring_of(settings, call.display()), manifest_name(key))


def _signature(signature: Signature | None, trusted: bool | None) -> str:
    if signature is None:
        return "none" if trusted is None else "none, so it is not restored here"
    said = f"by {signature.key_id.hex()}"
    if trusted is None:
        return f"{said}, not checked: no key is configured"
    return f"{said}, trusted" if trusted else f"{said}, not trusted, so it is not restored here"


def _captured_from(tree: TreeInfo) -> str:
    """Where a tree was, and of a CUDA toolkit its release."""
    release = tree.around.release if tree.around is not None else ""
    return f"{tree.root} (CUDA {printable(release)})" if release else tree.root
