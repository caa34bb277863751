"""The description of a layer in format 1, as it was released: it stays readable."""

from __future__ import annotations

from pathlib import Path

from cachepod.system.metadata import Accounts, Layer, decode, digest_of

GOLDEN = Path(__file__).parent / "layer-v1.json"


def test_format_1_is_read_and_written_as_ever() -> None:
    layer = decode(GOLDEN.read_bytes(), "layer.json")
    assert layer == Layer(
        distribution="debian 12",
        before={"dpkg:amd64": "1.21", "base:amd64": "1", "goes:all": "2"},
        after={"dpkg:amd64": "1.21", "base:amd64": "2", "tool:amd64": "7:1.0"},
        asked=("tool",),
        owners={"usr/share/tool/\udce4": "tool #102"},
        modes={"usr/bin/tool": 0o4755},
        capabilities={"usr/bin/ping": "0100000200200000000000000000000000000000"},
        accounts=Accounts(
            {
                "passwd": ("tool:x:101:102::/nonexistent:/usr/sbin/nologin",),
                "group": ("tool:x:102:",),
            },
            {"tool": "tool"},
            {"audio": ("tool",)},
        ),
        removed=("usr/share/gone/inside", "usr/share/gone"),
        changed={
            "usr/bin/base": f"md5:{'0' * 32}:7:1700000000",
            "etc/a": "link:b",
            "usr/share": "dir:0755:root root",
        },
        conffiles=frozenset({"etc/tool.conf"}),
        left=frozenset({"var/lib/tool/state"}),
        content="0" * 32,
    )
    assert layer.base.digest == "901ead5ec2ee8aac"
    assert layer.packages == {"base:amd64": "2", "tool:amd64": "7:1.0"}
    assert layer.encode() == GOLDEN.read_bytes()
    assert digest_of(layer.encode()) == "e5fc3b6bc8502940c8feb14ab20a10fd"
