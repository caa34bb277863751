"""``toolkit = true`` between two containers, from a stand-in for NVIDIA's repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nvidia import HOST, Served
from tests.support.roots import Container, Image

pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.slow]

HOOK = "cd /work && { cachepod restore || cachepod install && cachepod publish; }"
#: What packages and their maintainer scripts leave, each asked of the tool that knows it.
QUESTIONS = (
    "find /usr/local/cuda* -printf '%p %y %m %l\\n' | sort",
    "find /usr/local/cuda-12.6 -type f -printf '%p %T@\\n' | sort",
    "find /usr/local/cuda-12.6 -type f -exec sha256sum {} + | sort",
    "readlink /usr/local/cuda /usr/local/cuda-12 /etc/alternatives/cuda",
    "update-alternatives --display cuda; update-alternatives --display cuda-12",
    "head /etc/ld.so.conf.d/*cuda*",
    "ldconfig -p | sort",
    "dpkg -l | grep cuda",
    "dpkg --verify",
    "cat /etc/apt/sources.list.d/*cuda* /etc/apt/preferences.d/*",
    "sha256sum /usr/share/keyrings/cuda-archive-keyring.gpg",
)


@pytest.fixture
def work(tmp_path: Path, nvidia: Served) -> Path:
    """A worker's directory, on a volume that all containers have."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "cachepod.toml").write_text(
        f'store = ["store"]\ntoolkit = true\ncuda = "12.6"\ntoolkit_repository = "{nvidia.url}"\n'
        "min_free = 0.0\n"
    )
    return work


def start(debian: Image, tmp_path: Path, name: str, work: Path) -> Container:
    return debian.container(tmp_path / name, work=work)


def answers(container: Container) -> dict[str, str]:
    found = {}
    for question in QUESTIONS:
        done = container.run("sh", "-c", question)
        assert done.code == 0, f"{question}: {done.out}{done.err}"
        found[question] = done.out
    return found


def test_the_toolkit_is_as_if_apt_had_run_in_the_second_container(
    debian: Image, tmp_path: Path, work: Path, nvidia: Served
) -> None:
    first = start(debian, tmp_path, "first", work)
    cold = first.run("sh", "-c", HOOK)
    assert cold.code == 0, cold.err
    assert " stored in " in cold.err
    nvidia.asked.clear()
    second = start(debian, tmp_path, "second", work)
    program = 'echo $CUDA_HOME; command -v nvcc; nvcc; echo "[$LD_LIBRARY_PATH]"'
    warm = second.run("sh", "-c", f"cd /work && exec cachepod up -- sh -c '{program}'")
    assert warm.code == 0, warm.err
    assert warm.out.splitlines() == [
        "/usr/local/cuda-12.6",
        "/usr/local/cuda-12.6/bin/nvcc",
        "Cuda compilation tools, release 12.6, V12.6.85",
        "[]",
    ]
    assert nvidia.asked == []
    before, after = answers(first), answers(second)
    assert after == before
    assert "cuda-toolkit-12-6-config-common 12.6.77-1" in after["dpkg -l | grep cuda"]
    assert "libcudart.so.12" in after["ldconfig -p | sort"]
    sources = after["cat /etc/apt/sources.list.d/*cuda* /etc/apt/preferences.d/*"]
    assert nvidia.url in sources
    assert HOST not in sources
    # the repository works on: its list, its key and what dpkg knows fit together
    more = second.run(
        "sh", "-c", "apt-get update -qq && apt-get install -qq -y cuda-toolkit-12-6 nano-tiny"
    )
    assert more.code == 0, more.err
    gone = second.run(
        "sh", "-c", "apt-get purge -qq -y 'cuda-*' >/dev/null && ls /usr/local /etc/alternatives"
    )
    assert gone.code == 0, gone.err
    assert "cuda" not in gone.out


def test_a_release_that_nvidia_does_not_have_ends_the_install_in_words(
    debian: Image, tmp_path: Path, work: Path
) -> None:
    file = work / "cachepod.toml"
    file.write_text(file.read_text().replace("12.6", "99.9"))
    container = start(debian, tmp_path, "container", work)
    done = container.run("sh", "-c", "cd /work && cachepod install")
    assert done.code == 1
    assert "toolkit: NVIDIA has no CUDA 99.9 for debian12/x86_64: " in done.err
    assert "cuda-toolkit-99-9 in the sources of this image; it has 12.6\n" in done.err
    assert "Traceback" not in done.err


def test_a_user_without_root_is_told_that_a_toolkit_needs_it(
    debian: Image, tmp_path: Path, work: Path
) -> None:
    work.chmod(0o777)
    container = start(debian, tmp_path, "container", work)
    words = ("sh", "-c", "cd /work && cachepod install")
    done = container.run(*words, user="nobody", env={"HOME": "/tmp"})
    assert done.code == 1
    assert "cuda-toolkit-12-6 needs root; run the container as root" in done.err
