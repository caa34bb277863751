"""The script that installs without the cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cachepod.environment import torch
from tests.support import mounts
from tests.support.cli import wait_until
from tests.support.startup import CACHEPOD, INSTALL, Container, lines
from tests.support.wheels import Index


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def version(container: Container, package: str, prefix: Path | None = None) -> str:
    """What the environment imports of *package*; empty if it has none."""
    done = subprocess.run(
        [
            str((prefix or container.prefix) / "bin" / "python"),
            "-Ic",
            f"import {package}; print({package}.__version__)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


#: A uv that writes down what it is asked to install, and fails.
TELLS = 'case "$1" in pip) cat "$(printf "%s\\n" "$@" | grep asked.txt)" >asked; exit 3 ;; esac'


def without_uv(container: Container) -> None:
    """Take uv away, the one beside the interpreter as well."""
    container.tool("uv", "exit 1")
    container.tool(
        "python3",
        f'case "$*" in *"import uv"*) exit 1 ;; esac\nexec "{sys.executable}" "$@"',
    )


def told(err: str) -> list[str]:
    """What the script itself said."""
    return lines(err, "install: ")


def test_where_cachepod_works_it_installs(container: Container) -> None:
    done = container.install()
    assert (done.code, done.out) == (0, f"{container.prefix}\n"), done.err
    stamp = json.loads((container.prefix / ".cachepod" / "stamp.json").read_text())
    assert stamp["state"] == "installed"
    assert version(container, "alpha") == "1.0"


def test_its_failure_is_the_scripts(container: Container) -> None:
    container.configure('["gamma==1.0"]')
    done = container.install()
    assert (done.code, done.out) == (1, "")
    assert "gamma" in done.err


@pytest.mark.parametrize("manner", ["--plain", "--alone"])
def test_without_cachepod_the_same_packages_are_installed(
    container: Container, manner: str
) -> None:
    container.configure('["alpha==2.0", "beta"]')
    done = container.install(manner)
    assert (done.code, done.out) == (0, f"{container.prefix}\n"), done.err
    assert (version(container, "alpha"), version(container, "beta")) == ("2.0", "1.0")
    # nothing temporary stays
    assert os.listdir(container.prefix / ".cachepod") == ["stamp.json"]


def test_a_second_install_adds_what_is_asked_for_since(container: Container) -> None:
    container.install("--plain")
    container.configure('["alpha==2.0"]')
    done = container.install("--plain")
    assert done.code == 0, done.err
    assert version(container, "alpha") == "2.0"


def test_what_a_killed_install_has_left_is_made_anew(container: Container) -> None:
    container.install()
    stamp = container.prefix / ".cachepod" / "stamp.json"
    stamp.write_text(stamp.read_text().replace("installed", "installing"))
    (container.prefix / "remains").write_text("")
    assert container.install("--plain").code == 0
    assert not (container.prefix / "remains").exists()
    assert version(container, "alpha") == "1.0"


def test_flags_count_before_variables_and_these_before_the_file(container: Container) -> None:
    (container.root / "more.txt").write_text("alpha==2.0\n")
    elsewhere = container.root / "else where"
    done = container.install(
        "--alone", "-r", "more.txt", "--prefix", str(elsewhere), env={"CACHEPOD_PACKAGES": "beta"}
    )
    assert (done.code, done.out) == (0, f"{elsewhere}\n"), done.err
    assert version(container, "alpha", elsewhere) == "2.0"
    assert version(container, "beta", elsewhere) == "1.0"


def test_the_table_of_a_project_and_of_a_handler_is_read_without_cachepod(
    container: Container,
) -> None:
    (container.root / "cachepod.toml").unlink()
    (container.root / "pyproject.toml").write_text(
        '[tool.cachepod]\nfind_links = ["wheels"]\n'
        '[tool.cachepod.handlers.greeter]\nbase = "voice"\npackages = ["alpha==2.0"]\n'
        '[tool.cachepod.handlers.voice]\npackages = ["alpha==1.0", "beta", "gamma"]\n'
        'without = ["gamma"]\n'
    )
    done = container.install("--alone")
    assert done.code == 1  # a table leaves out what is below it, not what it asks for itself
    (container.root / "pyproject.toml").write_text(
        (container.root / "pyproject.toml")
        .read_text()
        .replace('"voice"\n', '"voice"\nwithout = ["gamma"]\n')
    )
    done = container.install("--alone")
    assert done.code == 0, done.err
    assert (version(container, "alpha"), version(container, "beta")) == ("2.0", "1.0")


def test_the_built_in_profiles_are_known_where_the_rest_of_cachepod_does_not_work(
    container: Container,
) -> None:
    asked = container.root / "asked"
    container.tool("uv", TELLS)
    (container.root / "cachepod.toml").write_text(
        '[handlers.reader]\nbase = "storage"\nwithout = ["curl", "wget"]\n'
        'packages = ["boto3==1.40.0"]\n'
    )
    assert container.install("--alone", "--handler", "reader", "beta").code == 1
    lines_asked = asked.read_text().splitlines()
    assert "boto3==1.40.0" in lines_asked
    assert "beta" in lines_asked
    assert [line.partition("=")[0] for line in lines_asked] == ["beta", "runpod", "boto3"]


def test_a_handler_that_nothing_is_known_of_is_told(container: Container) -> None:
    (container.root / "cachepod.toml").write_text("")
    done = container.install("--alone")
    assert (done.code, done.out) == (0, "")
    assert told(done.err)[0].startswith("nothing says what the handler greeter needs")


def test_pip_installs_where_there_is_no_uv(container: Container) -> None:
    without_uv(container)
    done = container.install("--plain")
    assert done.code == 0, done.err
    assert version(container, "alpha") == "1.0"
    assert "Successfully installed alpha-1.0" in done.err


def test_temporary_files_go_where_the_environment_is(container: Container) -> None:
    container.tool(
        "uv",
        'if [ "$1" = pip ]; then echo "$TMPDIR" >tmpdir; echo "$*" >words; fi\n'
        + (container.bin / "uv").read_text().partition("\n")[2],
    )
    done = container.install("--plain", env={"TMPDIR": "/dev/full"})
    assert done.code == 0, done.err
    inside = f"{container.prefix}/.cachepod/plain."
    assert (container.root / "tmpdir").read_text().startswith(inside)
    assert f"--cache-dir {inside}" in (container.root / "words").read_text()


def test_credentials_of_an_index_are_seen_by_nobody(container: Container) -> None:
    container.tool(
        "uv",
        'if [ "$1" = pip ]; then echo "$*" >words; fi\n'
        + (container.bin / "uv").read_text().partition("\n")[2],
    )
    secret = "https://user:hunter2@packages.example/simple"
    done = container.install("--plain", env={"CACHEPOD_INDEX_URL": secret})
    assert done.code == 0, done.err
    assert "hunter2" not in done.err + (container.root / "words").read_text()


@pytest.mark.parametrize(
    ("cuda", "torch", "index"),
    [
        ("12.6", "2.7.0", ""),
        ("12.8", "2.7.0", "https://download.pytorch.org/whl/cu128"),
        ("11.8", "2.5.1", "https://download.pytorch.org/whl/cu118"),
        ("", "2.7.0", ""),
        ("12.6", "2.7.0", "{backend}: https://mirror.example/cu126"),
        ("", "2.7.0", "{backend}: https://mirror.example/cu126"),
    ],
)
def test_torch_comes_from_the_index_of_its_cuda_release(
    container: Container, cuda: str, torch: str, index: str
) -> None:
    env = {}
    if index.startswith("{backend}: "):
        env = {"CACHEPOD_TORCH_INDEX": "https://mirror.example/{backend}"}
        index = index.removeprefix("{backend}: ")
    container.tool("uv", TELLS)
    words = ["--cuda", cuda] if cuda else []
    done = container.install("--alone", *words, f"torch=={torch}", env=env)
    assert done.code == 1
    asked = (container.root / "asked").read_text().splitlines()
    found = [line.partition(" ")[2] for line in asked if line.startswith("--extra-index-url")]
    assert found == ([index] if index else [])
    assert f"torch=={torch}" in asked


def test_the_script_knows_the_builds_on_pypi_that_cachepod_knows() -> None:
    (table,) = re.findall(r"^ON_PYPI = (\{[^}]*\})", INSTALL.read_text(), re.M)
    assert json.loads(table) == dict(torch._PYPI_X86_64)


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/gpus"), reason="there is a GPU here")
def test_without_a_gpu_torch_is_the_build_for_the_cpu_where_that_is_configured(
    container: Container,
) -> None:
    container.tool("uv", TELLS)
    env = {"CACHEPOD_WITHOUT_GPU": "cpu"}
    assert container.install("--alone", "torch==2.7.0", "flash-attn", env=env).code == 1
    asked = (container.root / "asked").read_text().splitlines()
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in asked
    assert "flash-attn" not in asked


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_flash_attn_is_never_built_from_source(container: Container, installer: str) -> None:
    container.configure('["flash-attn"]')
    source = container.root / "flash_attn-2.8.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(container.root / 'built')!r}, 'w')\n")
    shutil.make_archive(
        str(container.wheels / "flash_attn-2.8.0"), "gztar", container.root, source.name
    )
    if installer == "pip":
        without_uv(container)
    done = container.install("--alone")
    assert done.code == 1
    assert not (container.root / "built").exists()
    assert told(done.err)[-1].startswith("the packages are not installed: ")


def test_flash_attn_comes_by_the_wheel_for_the_torch_that_is_installed(
    container: Container,
) -> None:
    releases = container.root / "releases"
    index = Index(container.root / "index")
    index.add(
        "torch",
        "2.7.0",
        {
            "torch/__init__.py": "__version__ = '2.7.0+cu126'\nfrom . import version, _C\n",
            "torch/version.py": "cuda = '12.6'\n",
            "torch/_C.py": "_GLIBCXX_USE_CXX11_ABI = True\n",
        },
    )
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    made = Index(releases).add(
        "flash_attn", "2.8.0.post2+cu12torch2.7cxx11abiTRUE", tag=f"{tag}-{tag}-linux_x86_64"
    )
    (releases / "v2.8.0.post2").mkdir()
    made.rename(releases / "v2.8.0.post2" / made.name)
    container.configure('["torch"]', f'index_url = "{index.url}"')
    (container.root / "cachepod.toml").write_text(
        f'packages = ["torch"]\nindex_url = "{index.url}"\nflash_attn = ["2.8.0", "2.8.0.post2"]\n'
        f'flash_attn_sources = ["{releases}/v{{version}}"]\n'
    )
    done = container.install("--alone", env={"UV_NO_CONFIG": "1"})
    assert done.code == 0, done.err
    assert list(container.prefix.glob("lib/*/site-packages/flash_attn"))
    (releases / "v2.8.0.post2" / made.name).unlink()
    container.wipe()
    done = container.install("--alone")
    assert (done.code, done.out) == (1, "")
    assert told(done.err)[-1] == (
        "there is no wheel of flash-attn 2.8.0 2.8.0.post2 for "
        f"cu12torch2.7cxx11abiTRUE-{tag}-{tag}-linux_x86_64.whl"
    )
    done = container.install("--alone", env={"CACHEPOD_FLASH_ATTN_MISSING": "warning"})
    assert done.code == 0, done.err
    assert told(done.err)[-1].startswith("warning: going on without flash-attn")


# ---------------------------------------------------------------- apt


APT_GET = """
echo "$DEBIAN_FRONTEND $*" >>apt.log
case "$*" in *update*) exit 0 ;; esac
exit ${APT_CODE:-0}
"""


def as_root(container: Container) -> None:
    container.tool("id", "echo 0")
    container.tool("dpkg-query", '[ "$4" = espeak-ng ] && echo installed')
    container.tool("apt-get", APT_GET)


def test_apt_packages_that_are_not_there_are_installed_without_recommends(
    container: Container,
) -> None:
    as_root(container)
    done = container.install("--alone", "--apt", "espeak-ng", "--apt", "libsndfile1=1.2")
    assert done.code == 0, done.err
    log = (container.root / "apt.log").read_text().splitlines()
    assert log[-1] == (
        "noninteractive -qq -y -o DPkg::Lock::Timeout=60 install --no-install-recommends "
        "libsndfile1=1.2"
    )


def test_apt_packages_that_cannot_be_had_are_an_error_or_a_warning(container: Container) -> None:
    as_root(container)
    done = container.install("--alone", "--apt", "ffmpeg", env={"APT_CODE": "100"})
    assert done.code == 1
    assert told(done.err)[-1] == (
        "the apt packages ffmpeg are not installed: "
        "apt-get failed with exit code 100, as said above"
    )
    assert not container.prefix.exists()
    done = container.install(
        "--alone", "--apt", "ffmpeg", env={"APT_CODE": "100", "CACHEPOD_APT_MISSING": "warning"}
    )
    assert done.code == 0, done.err
    assert version(container, "alpha") == "1.0"


def test_only_root_installs_apt_packages(container: Container) -> None:
    as_root(container)
    container.tool("id", "echo 1000")
    done = container.install("--alone", "--apt", "ffmpeg")
    assert done.code == 1
    assert told(done.err) == [
        "the apt packages ffmpeg are not installed: only root can install them"
    ]
    assert not (container.root / "apt.log").exists()


@pytest.mark.parametrize(
    "package", ["nvidia-driver-550", "cuda-drivers", "libcuda1", "nvidia-open"]
)
def test_drivers_are_refused(container: Container, package: str) -> None:
    as_root(container)
    done = container.install("--alone", "--apt", package)
    assert done.code == 2
    assert told(done.err) == [
        f"the apt package {package} brings a driver, which is the host's to install: leave it out"
    ]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--prefix",), "--prefix needs a value; --help tells more"),
        (("--fast",), "there is no option --fast; --help tells which there are"),
        (("--alone", "--cuda", "twelve"), "the CUDA release 'twelve' is not of the form 12.6"),
        (
            ("--alone", "-r", "none.txt"),
            "the requirements file {root}/none.txt cannot be read: no such file or directory",
        ),
    ],
)
def test_bad_input_is_answered_in_one_sentence(
    container: Container, words: tuple[str, ...], sentence: str
) -> None:
    done = container.install(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"install: {sentence.format(root=container.root)}\n"


def test_a_configuration_that_cachepod_refuses_is_not_installed(container: Container) -> None:
    container.configure(more='level = "high"')
    done = container.install()
    assert (done.code, done.out) == (2, "")
    assert "level must be" in done.err


def test_a_file_that_is_no_toml_is_told(container: Container) -> None:
    (container.root / "cachepod.toml").write_text("packages = [")
    done = container.install("--alone")
    assert done.code == 2
    assert len(told(done.err)) == 1
    assert told(done.err)[0].startswith(f"{container.root}/cachepod.toml cannot be read: ")


def test_help_is_there(container: Container) -> None:
    for script in (container.install("--help"), container.start_up("--help")):
        assert script.code == 0
        assert script.out.startswith("usage: ")
        assert script.err == ""


@pytest.mark.root
def test_a_full_disk_has_its_own_code(container: Container) -> None:
    with mounts.tmpfs(container.root / "small", size=200_000) as small:
        done = container.install("--alone", "--prefix", str(small / "venv"))
    assert (done.code, done.out) == (7, ""), done.err
    assert "is full" in done.err


def test_a_stop_ends_the_installer(container: Container) -> None:
    container.tool(
        "uv",
        '[ "$1" = pip ] || exit 0\ntrap "touch stopped; exit 1" TERM\ntouch begun\n'
        "while :; do sleep 0.05; done",
    )
    process = subprocess.Popen(
        [str(INSTALL), "--plain"],
        cwd=container.root,
        env=container.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until((container.root / "begun").exists, timeout=60)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (container.root / "stopped").exists()
    assert os.listdir(container.prefix / ".cachepod") == ["stamp.json"]


def test_a_broken_cachepod_is_told_and_done_without(container: Container) -> None:
    container.tool("cachepod", "exit 1")
    done = container.install()
    assert done.code == 0, done.err
    assert told(done.err)[0] == "cachepod does not work here (exit code 1): going on without it"
    assert version(container, "alpha") == "1.0"
    container.tool("cachepod", CACHEPOD)
