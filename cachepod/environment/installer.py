"""What the two installers have in common: what they are given, and what they promise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachepod.environment.distributions import normal_name
from cachepod.environment.flash_plan import NAME as FLASH_ATTN
from cachepod.environment.requirements import Requirements
from cachepod.environment.space import Artifact
from cachepod.environment.tidy import EPOCH
from cachepod.errors import InstallFailed

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity

TORCH_INDEX = re.compile(r"https?://download\.pytorch\.org/whl/(?P<backend>[a-z]+[0-9.]*)/?")

_LOCAL = re.compile(r"(?:-e\s+)?(?:/|file:)|[^;]*@\s*file:")
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.\-]*)")
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9][\w.\-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;]+)")

# Variables that would turn an installer away from the prefix, or another interpreter's modules
# into it. All others are the user's: indexes, certificates, proxies, credentials.
_UNWANTED = (
    "CONDA_PREFIX",
    "PIP_NO_COMPILE",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_REPORT",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "UV_BREAK_SYSTEM_PACKAGES",
    "UV_COMPILE_BYTECODE",
    "UV_LINK_MODE",
    "UV_MANAGED_PYTHON",
    "UV_NO_CACHE",
    "UV_NO_MANAGED_PYTHON",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_REQUIRE_HASHES",
    "UV_SYSTEM_PYTHON",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True)
class Wanted:
    """
    What is to be installed, and from where.

    Args:
        requirements: As read; every line needs no other file.

        locked: Whether the lines are all there is to install, dependencies included.

        index_url: Instead of PyPI; empty for the installer's own choice.

        extra_index_urls: Beside it.

        find_links: Directories and pages of files.

        torch_index: Where torch comes from, empty if from the index.

        left_out: Names of distributions that are not installed, even if others depend on them.

        directory: Where the installer runs, and so which configuration files it finds.

        provided: Versions of flash-attn of which one will be there without being installed from
            here; it is nothing that could be missing.

        environ: The user's environment.

    What may hold credentials goes to the installers in files, never in arguments: everybody on
    the machine can read those.
    """

    requirements: Requirements
    locked: bool
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    torch_index: str = field(default="", repr=False)
    left_out: tuple[str, ...] = ()
    directory: Path = Path("/")
    provided: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @classmethod
    def of(cls, settings: Settings, identity: Identity, environ: Mapping[str, str]) -> Wanted:
        """
        What the configuration asks for.

        An extra index that is PyTorch's own counts as the torch index: it also holds old
        versions of packages that have nothing to do with torch.
        """
        asked = identity.requirements
        extra = list(asked.extra_index_urls)
        torch_index = identity.torch_index
        for url in asked.extra_index_urls:
            if TORCH_INDEX.fullmatch(url) and torch_index in ("", url):
                torch_index = url
                extra.remove(url)
        return cls(
            requirements=asked,
            locked=settings.lock is not None,
            index_url=asked.index_url,
            extra_index_urls=tuple(extra),
            find_links=asked.find_links,
            torch_index=torch_index,
            left_out=identity.left_out,
            directory=settings.root,
            provided=identity.flash_attn.versions if identity.flash_attn else (),
            environ=environ,
        )

    @property
    def hashed(self) -> bool:
        """Whether every package must match a hash: pip's rule is all or none."""
        asked = self.requirements
        return asked.require_hashes or any(line.hashed for line in asked.lines)

    @property
    def torch_backend(self) -> str:
        """``cu126`` if torch is to come from PyTorch's own index for it."""
        match = TORCH_INDEX.fullmatch(self.torch_index)
        return match["backend"] if match else ""

    def options(self, *, torch_as_extra: bool) -> str:
        """
        The lines of a requirements file that say where packages come from.

        flash-attn is never built: whatever asks for it, hours of compiling are nobody's surprise.
        """
        extra = list(self.extra_index_urls)
        if self.torch_index and torch_as_extra:
            extra.append(self.torch_index)
        asked = self.requirements
        links = [each if "://" in each else Path(each).as_uri() for each in self.find_links]
        return "".join(
            f"{option} {value}\n"
            for option, values in (
                ("--index-url", [self.index_url] if self.index_url else []),
                ("--extra-index-url", extra),
                ("--find-links", links),
                ("--no-binary", asked.no_binary),
                ("--only-binary", (*asked.only_binary, FLASH_ATTN)),
            )
            for value in values
        )

    def local_names(self, artifacts: Iterable[Artifact]) -> set[str]:
        """
        Names of what comes from this machine's disk, where a version says nothing of the content.

        Args:
            artifacts: Of the resolution, where a project has its name even if its directory
                does not tell it.
        """
        named = {line.name for line in self.requirements.lines if _LOCAL.match(line.line)}
        built = {artifact.name for artifact in artifacts if artifact.kind == "project"}
        return {name for name in named | built if _NAME.fullmatch(name)}


@dataclass(frozen=True)
class Resolution:
    """
    Exactly what is to be installed.

    Args:
        lines: For a requirements file: one package each, nothing left to choose.

        artifacts: What they are installed from; empty if that could not be found out.
    """

    lines: tuple[str, ...] = field(repr=False)
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True)
class Watch:
    """
    Where an installer tells how it fares.

    Args:
        written: Called with the bytes that were written since the last call.

        note: Called with what a user should know now.
    """

    written: Callable[[int], None] = lambda count: None
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Build:
    """
    A build from source that needs what is installed already, such as torch.

    Args:
        line: The requirement.

        name: The package in it.

        needs: What the build itself imports; it is there for the build alone.

        environ: Variables for the build.
    """

    line: str = field(repr=False)
    name: str
    needs: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


class Installer(Protocol):
    """
    One way to install packages.

    Its methods raise InstallFailed, and SpaceExhausted if the disk is full.
    """

    name: str

    def resolve(self, wanted: Wanted) -> Resolution:
        """Decide what to install, from metadata alone."""
        ...

    def sync(self, wanted: Wanted, resolution: Resolution, python: Path, watch: Watch) -> None:
        """Make the environment of *python* hold what *resolution* says, and nothing else."""
        ...

    def add(self, wanted: Wanted, wheel: Path, exact: str, python: Path, watch: Watch) -> None:
        """
        Install *wheel*, alone in its directory, and none of what it needs, into that environment.

        Args:
            exact: The requirement that it meets, ``NAME==VERSION``.
        """
        ...

    def build(self, wanted: Wanted, build: Build, python: Path, watch: Watch) -> None:
        """Build a package from source in that environment, and install it alone."""
        ...


def child_environ(environ: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """
    *environ* for an installer.

    Temporary files go to *temporary*: ``/tmp`` of a container is often too small for them. Builds
    from source are told a fixed time and a fixed hash seed, so that two of them are alike.
    """
    kept = {name: value for name, value in environ.items() if name not in _UNWANTED}
    kept.update(
        TMPDIR=str(temporary),
        SOURCE_DATE_EPOCH=str(EPOCH),
        PYTHONHASHSEED="0",
        NO_COLOR="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INPUT="1",
        UV_PYTHON_DOWNLOADS="never",
        UV_NO_PROGRESS="1",
    )
    return kept


def stand_ins(folder: Path, name: str, versions: Sequence[str]) -> str:
    """
    Wheels of nothing in *folder*, as the option of a requirements file that finds them.

    A resolver that meets somebody's need of *name* finds it met; they are never installed.
    """
    if not versions:
        return ""
    import zipfile

    folder.mkdir(exist_ok=True)
    spelled = name.replace("-", "_")
    for version in versions:
        info = f"{spelled}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{spelled}-{version}-py3-none-any.whl", "w") as archive:
            for part, text in (
                ("METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
                ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
                ("RECORD", "".join(f"{info}/{each},,\n" for each in ("METADATA", "WHEEL"))),
            ):
                archive.writestr(f"{info}/{part}", text)
    return f"--find-links {folder.as_uri()}\n"


def write_private(path: Path, text: str) -> Path:
    """Write *text*, which may hold credentials, to *path* for the user's eyes alone."""
    with open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    return path


def with_hashes(lines: Sequence[str], requirements: Requirements) -> tuple[str, ...]:
    """
    Resolved *lines* with the hashes that the requirements give.

    Raises:
        InstallFailed: Some package has none there. That is pip's rule: hashes for all or for none.
    """
    hashes = {
        line.name: "".join(f" {word}" for word in line.line.split() if word.startswith("--hash="))
        for line in requirements.lines
        if line.hashed
    }
    done = []
    for line in lines:
        match = _PINNED.match(line)
        if "--hash=" in line or match is None:
            done.append(line)
            continue
        found = hashes.get(normal_name(match["name"]))
        if not found:
            raise InstallFailed(
                f"{match['name']}=={match['version']} is needed but has no hash, "
                "and some requirements have",
                hint="give hashes for all of them: cachepod lock writes such a file",
            )
        done.append(line + found)
    return tuple(done)


def pinned_names(lines: Sequence[str]) -> set[str]:
    """Normalised names in resolved *lines*, as far as they have one."""
    return {normal_name(match["name"]) for line in lines if (match := _NAME.match(line))}
