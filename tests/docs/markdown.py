"""Reading Markdown as far as the tests of the documentation need it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNNABLE = "<!-- runnable -->"

_FENCE = re.compile(r"^```(?P<language>\S*)")
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its *language*, its lines, and the line before it."""

    path: Path
    line: int
    language: str
    lines: tuple[str, ...]
    before: str

    @property
    def name(self) -> str:
        """``README.md:12``."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        """Its lines."""
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Page:
    """One Markdown file, taken apart."""

    path: Path
    blocks: tuple[Block, ...]
    prose: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return str(self.path.relative_to(ROOT))

    def spans(self) -> Iterator[tuple[int, str]]:
        """Line and text of each piece of `code` in the prose."""
        for line, text in self.prose:
            for span in _SPAN.findall(text):
                yield line, span

    def links(self) -> Iterator[tuple[int, str]]:
        """Line and target of each link."""
        for line, text in self.prose:
            for match in _LINK.finditer(_SPAN.sub("", text)):
                yield line, match["target"]

    def anchors(self) -> set[str]:
        """The fragments that its headings answer to, as GitHub makes them."""
        found: set[str] = set()
        for _, text in self.prose:
            heading = _HEADING.match(text)
            if heading is None:
                continue
            slug = re.sub(r"[^\w\- ]", "", heading["title"].lower()).replace(" ", "-")
            number = 0
            while (unique := f"{slug}-{number}" if number else slug) in found:
                number += 1
            found.add(unique)
        return found


def read_page(path: Path) -> Page:
    """Take the file at *path* apart."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    inside: list[str] | None = None
    language, begin, before = "", 0, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line.strip())
        if fence and inside is None:
            inside, language, begin = [], fence["language"], number
            before = next((text for _, text in reversed(prose) if text.strip()), "")
        elif fence and inside is not None:
            blocks.append(Block(path, begin, language, tuple(inside), before))
            inside = None
        elif inside is not None:
            inside.append(line)
        else:
            prose.append((number, line))
    assert inside is None, f"{path}: the block that begins in line {begin} has no end"
    return Page(path, tuple(blocks), tuple(prose))


def pages() -> list[Page]:
    """Every Markdown file of the repository that documents it."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/**/*.md")]
    paths += ROOT.glob("examples/**/*.md")
    return [read_page(path) for path in sorted(paths)]
