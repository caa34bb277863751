"""
URLs without their secrets, for the key and for what is shown.

A secret is the part before ``@`` in front of the host, and the value of a query's parameter that
is called like one. The key leaves secrets out, so that a rotated token is no new environment;
what is shown has ``***`` in their place, so that a reader sees there is one.
"""

from __future__ import annotations

import re

MASK = "***"

# scheme://user:password@host - the authority ends at the first / ? # or blank, and a password
# may hold an @ of its own: the last one counts
_USER = r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#\s]*)@"
_AUTHORITY = r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\s]*)"
_PARAMETER = r"(?<=[?&])([^=&#\s]+)=([^&#\s]*)"
_QUERY = r"\?([^#\s]*)"
# names of the parameters that services take tokens in or sign URLs with (S3, GCS, Azure)
_SECRET = (
    r"(?i)token|secret|passw|pwd|auth(?!or)|credential|signature|api[_-]?key|access[_-]?key"
    r"|^(?:key|sig|pass|x-amz-.*|x-goog-.*|expires|awsaccesskeyid|googleaccessid"
    r"|sv|se|st|sp|sr|spr|skoid|sktid|skt|ske|sks|skv)$"
)


def is_secret_name(name: str) -> bool:
    """Whether a variable or a parameter called *name* holds a secret by its name."""
    return re.search(_SECRET, name) is not None


def plain(url: str) -> str:
    """
    *url* for the key: no credentials, no signature, scheme and host in lower case.

    ``https://me:TOKEN@Host.example/simple?token=x`` becomes ``https://host.example/simple``.
    """
    url = re.sub(_USER, r"\1", url)
    url = re.sub(_AUTHORITY, lambda match: f"{match[1].lower()}://{match[2].lower()}", url, count=1)

    def public(match: re.Match[str]) -> str:
        kept = [
            part for part in match[1].split("&") if part and not is_secret_name(part.split("=")[0])
        ]
        return "?" + "&".join(kept) if kept else ""

    return re.sub(_QUERY, public, url, count=1)


def masked(text: str) -> str:
    """*text* for a reader: every secret in every URL of it replaced by ``***``."""
    if "://" not in text:
        return text
    text = re.sub(_USER, rf"\1{MASK}@", text)
    return re.sub(
        _PARAMETER,
        lambda match: f"{match[1]}={MASK if is_secret_name(match[1]) else match[2]}",
        text,
    )
