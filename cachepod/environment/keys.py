"""
The keys of the configuration, each with what makes a value of it and where else it can be given.

:class:`cachepod.environment.config.Settings` has the values; docs/configuration.md says what each
key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cachepod.environment import amounts
from cachepod.environment import settings as read

#: The platform's variable for the kind of worker. Other software may have set it.
HANDLER_TYPE = "HANDLER_TYPE"


@dataclass(frozen=True)
class Key:
    """
    One key of the configuration.

    Args:
        reader: Makes a value of the right type of what was given.

        flag: Its option on the command line; empty where it has none.

        other_variables: Environment variables that count besides ``CACHEPOD_<KEY>``.

        variable: Whether ``CACHEPOD_<KEY>`` is one at all.
    """

    reader: read.Reader
    flag: str = ""
    other_variables: tuple[str, ...] = ()
    variable: bool = True


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "store": Key(read.places, "--store"),
        "prefix": Key(read.path, "--prefix"),
        "requirements": Key(read.paths, "-r"),
        "packages": Key(read.texts),
        "lock": Key(read.path),
        "trees": Key(read.folders, "--tree"),
        "key": Key(read.user_key, "--key"),
        "handler": Key(read.text, "--handler", (HANDLER_TYPE,)),
        "handlers": Key(read.tables, variable=False),
        "python": Key(read.command),
        "cuda": Key(read.cuda),
        "torch_index": Key(read.torch_index),
        "index_url": Key(read.url),
        "extra_index_urls": Key(read.urls),
        "find_links": Key(read.places),
        "without_gpu": Key(read.one_of("same", "cpu", "none")),
        "toolkit": Key(read.toolkit),
        "toolkit_repository": Key(read.url),
        "flash_attn": Key(read.versions),
        "flash_attn_sources": Key(read.places),
        "flash_attn_missing": Key(read.one_of("error", "warning")),
        "flash_attn_build": Key(read.yes_or_no),
        "apt": Key(read.apt_packages),
        "apt_missing": Key(read.one_of("error", "warning")),
        "check": Key(read.modules),
        "installer": Key(read.one_of("auto", "uv", "pip")),
        "cache_dir": Key(read.path, "--cache-dir"),
        "level": Key(read.whole(1, 22), "--level"),
        "threads": Key(read.whole(0), "--threads"),
        "direct": Key(read.yes_or_no, "--no-direct"),
        "timeout": Key(read.number(0), "--timeout"),
        "wait": Key(read.number(0), "--wait"),
        "min_free": Key(read.number(0, 0.9, "write 0.1 for a tenth of the file system")),
        "compile": Key(read.yes_or_no),
        "fill": Key(read.one_of("background", "after", "off"), "--fill"),
        "keep_last": Key(read.whole(0), "--keep-last"),
        "max_age": Key(amounts.duration, "--max-age"),
        "max_size": Key(amounts.size, "--max-size"),
        "keep": Key(amounts.keys, "--keep"),
        "grace": Key(amounts.duration, "--grace"),
        "signing_key": Key(read.path),
        "trusted_keys": Key(read.paths),
    }
)
