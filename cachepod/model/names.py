"""
Names of objects in a store, and what may be a name.

::

    STORE/
      cachepod.json                 format version, written once
      CACHEDIR.TAG                  tells backup programs to look away
      packs/ab/<pack id>            immutable; the id is 32 hex digits, drawn at random
      manifests/<family>/<key>      the write of it is the sole commit point of a publish
      incoming/                     what is on its way to replace an object of the same name
      damaged/<pack id>             a reader found this pack damaged: take no chunk from it
      leases/<key>/<n>              who builds the key; the highest n counts
      pins/<id>                     packs that a publish, a copy or a long restore relies on
      condemned/<id>                packs that a prune is about to delete: rely on none of them
      uses/<key>/...                when a key was asked for, and what came of it
      probes/<16 hex digits>        what was found out about the S3 service that gives the store
      trash/                        what was set aside and is not yet deleted

A key carries its family, so that finding a snapshot by its key needs no listing:
``<family>-<16 hex digits>``. A key that the user names (``--key``) belongs to the family ``named``.
"""

from __future__ import annotations

import re

from cachepod.errors import UsageProblem

STORE_FORMAT = 1
FORMAT_OBJECT = "cachepod.json"
MANIFESTS = "manifests"
INCOMING = "incoming"
PACKS = "packs"
DAMAGED = "damaged"
LEASES = "leases"
PINS = "pins"
CONDEMNED = "condemned"
USES = "uses"
PROBES = "probes"
TRASH = "trash"
NAMED_FAMILY = "named"
#: In the root of a tree this name is cachepod's own; no snapshot has an entry there.
STATE_NAME = b".cachepod"

#: Of a key, at most: with a dot and 16 digits behind it, it must still be a component.
_KEY_LENGTH = 168

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_FAMILY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")
_KEY = re.compile(rf"(?P<family>{_FAMILY.pattern})-[0-9a-f]{{16}}")
_PACK_ID = re.compile(r"[0-9a-f]{32}")
_TREE = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def is_component(text: str) -> bool:
    """Whether *text* may stand between two slashes of an object's name."""
    return _COMPONENT.fullmatch(text) is not None


def is_object_name(name: str) -> bool:
    """Whether every component of *name* is allowed; no absolute name, no ``..``, none empty."""
    return all(is_component(part) for part in name.split("/"))


def is_pack_id(text: str) -> bool:
    """Whether *text* is 32 lower-case hex digits."""
    return _PACK_ID.fullmatch(text) is not None


def is_family(text: str) -> bool:
    """Whether *text* may name a family: ``<text>-<16 hex digits>`` is then a key."""
    return _FAMILY.fullmatch(text) is not None


def family_of(key: str) -> str:
    """The family that *key* belongs to, read from the key itself."""
    match = _KEY.fullmatch(key)
    return match["family"] if match else NAMED_FAMILY


def check_key(key: str) -> str:
    """Return *key* if it may name a snapshot; raise UsageProblem otherwise."""
    if not is_component(key) or len(key) > _KEY_LENGTH:
        raise UsageProblem(
            f"{key!r} cannot be a key",
            hint=f"use letters, digits, '.', '_', '+' and '-', at most {_KEY_LENGTH} of them",
        )
    return key


def check_user_key(key: str) -> str:
    """Return *key* if a user may choose it with ``--key``; raise UsageProblem otherwise."""
    if _KEY.fullmatch(key):
        raise UsageProblem(
            f"{key!r} looks like a computed key",
            hint="a name of your own must not end in '-' and 16 hex digits",
        )
    return check_key(key)


def check_tree_name(name: str) -> str:
    """Return *name* if a tree may be called so; raise UsageProblem otherwise."""
    if not _TREE.fullmatch(name):
        raise UsageProblem(
            f"{name!r} cannot be the name of a tree",
            hint="use a lower-case letter, then letters, digits, '_' and '-', at most 32",
        )
    return name


def manifest_name(key: str) -> str:
    """Where the manifest of *key* lies."""
    return f"{MANIFESTS}/{family_of(key)}/{key}"


def pack_name(pack_id: str) -> str:
    """Where the pack *pack_id* lies; two hex digits of fan-out keep directories small."""
    return f"{PACKS}/{pack_id[:2]}/{pack_id}"


def lease_name(name: str, number: int) -> str:
    """Where the lease *number* of *name* lies; a key's build is leased under the key."""
    return f"{LEASES}/{name}/{number}"


def damaged_name(pack_id: str) -> str:
    """Where the mark lies that says *pack_id* was found damaged."""
    return f"{DAMAGED}/{pack_id}"
