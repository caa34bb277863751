"""
Running a command and seeing what it cost; tables and JSON of the results.

What is measured is always a whole child process, as a container would start it: wall time, CPU
time (user + sys) of it and of all that it waited for, and the peak resident size of the largest of
those processes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LAUNCH = Path(__file__).with_name("launch.py")


class CommandFailed(Exception):
    """
    A measured command ended with another exit code than the expected ones.

    Args:
        message: For a person: the command, the exit code, the end of its standard error.

        cost: What it took all the same.

        said: The end of its standard error; empty where that was let through.
    """

    def __init__(self, message: str, cost: Cost, said: str) -> None:
        super().__init__(message)
        self.cost = cost
        self.said = said


@dataclass(frozen=True)
class Cost:
    """
    What one run took.

    Args:
        seconds: Wall time.

        cpu: CPU seconds, user and system, of the process and its children.

        peak: Peak resident bytes of the largest process. The kernel counts from the fork on, so
            that it is never less than the size of the process that starts it, some 10 MB.

        code: Exit code.

        output: What it wrote to its standard output.

        resident: The most resident bytes that the process and its descendants had together, as
            far as some looks a second tell; pages that they share count for each. 0 if nobody
            looked.
    """

    seconds: float
    cpu: float
    peak: int
    code: int
    output: str
    resident: int = 0

    @property
    def report(self) -> dict[str, Any]:
        """
        The JSON document that a ``--json`` command printed; empty if it printed none.

        What a publish says of its first store stands beside what it says of the whole.
        """
        try:
            value = json.loads(self.output)
        except ValueError:
            return {}
        if not isinstance(value, dict):
            return {}
        return {**value, **next(iter(value.get("stores", [])), {})}

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, out of :attr:`report`."""
        phases = self.report.get("phases", {})
        return {str(name): float(value) for name, value in phases.items()}


def run(
    command: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    codes: Sequence[int] = (0,),
    quiet: bool = True,
    watch: bool = False,
) -> Cost:
    """
    Run *command* and measure it.

    Args:
        command: Program and arguments.

        environ: Added to this process's own environment.

        cwd: Where it runs.

        codes: Exit codes that are as they should be.

        quiet: Keep its standard error back unless it fails; else let it through.

        watch: Look at the memory of it and its descendants, too.

    Raises:
        CommandFailed: Another exit code; the message holds the end of its standard error.
    """
    arguments = [str(part) for part in command]
    reader, writer = os.pipe()
    with ExitStack() as stack:
        told = stack.enter_context(open(reader, "rb"))
        out, err = (stack.enter_context(tempfile.TemporaryFile("w+b")) for _ in range(2))
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCH), str(writer), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err if quiet else None,
            cwd=cwd,
            env={**_clean_environment(), **(environ or {})},
            pass_fds=[writer],
        )
        os.close(writer)
        watcher = _Watcher(process.pid) if watch else None
        try:
            report = told.read().decode()
            process.wait()
        except BaseException:
            # Told to stop: what was started ends first, for its ground is about to go.
            process.terminate()
            process.wait()
            raise
        finally:
            resident = watcher.stop() if watcher else 0
        out.seek(0)
        output = out.read().decode(errors="replace")
        err.seek(0)
        said = err.read().decode(errors="replace")[-2000:]
    numbers = report.split()
    if len(numbers) != 4:
        raise OSError(f"{arguments[0]} {report or 'could not be measured: ' + said}")
    seconds, cpu, peak = float(numbers[0]), float(numbers[1]), int(numbers[2])
    code = os.waitstatus_to_exitcode(int(numbers[3]))
    cost = Cost(seconds, cpu, peak, code, output, resident)
    if cost.code not in codes:
        raise CommandFailed(f"{' '.join(arguments)}\nexit code {cost.code}\n{said}", cost, said)
    return cost


class _Watcher:
    """Looks at the memory of all descendants of a process five times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.2):
            pending, pages = [self._pid], 0
            while pending:
                pid = pending.pop()
                place = f"/proc/{pid}"
                try:
                    if pid != self._pid:
                        pages += int(Path(place, "statm").read_text().split()[1])
                    for task in os.listdir(f"{place}/task"):
                        pending += map(
                            int, Path(place, "task", task, "children").read_text().split()
                        )
                except (OSError, ValueError):
                    continue  # it has ended
            self._most = max(self._most, pages * page)

    def stop(self) -> int:
        """The most bytes that were seen."""
        self._over.set()
        self._thread.join()
        return self._most


def script(main: Callable[[], None]) -> None:
    """Call *main*; a command that failed is shown without a traceback of the benchmark."""
    try:
        main()
    except CommandFailed as error:
        sys.exit(f"failed: {error}")


def pipeline(text: str, *arguments: str | Path) -> list[str]:
    """The command that runs *text* in a shell with *arguments* as ``$1``, ``$2``, ..."""
    return ["bash", "-o", "pipefail", "-c", text, "bash", *map(str, arguments)]


def _clean_environment() -> dict[str, str]:
    """This process's environment, without what would change how a Python child behaves."""
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONPATH", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def find_tool(name: str) -> str | None:
    """The command *name* that belongs to the interpreter at work, else the first on the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def needs(*tools: str) -> str:
    """Which of *tools* are missing here, in words; empty if none is."""
    missing = [tool for tool in tools if find_tool(tool) is None]
    return f"no {', '.join(missing)} here" if missing else ""


def cachepod() -> str:
    """The command that is measured."""
    found = find_tool("cachepod")
    if not found:
        raise SystemExit("cachepod is not installed beside this interpreter: pip install -e .")
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_times() -> tuple[float, float]:
    """
    Seconds that the cores of this machine have worked since it was started, and all their seconds.

    What two looks differ by says how busy the cores were in between, whoever kept them so.
    """
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    total = sum(ticks) / os.sysconf("SC_CLK_TCK")
    idle = (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK")  # idle, and waiting for a disk
    return total - idle, total


def busy_since(look: tuple[float, float]) -> float:
    """The share of the cores' time that was worked since :func:`cpu_times` gave *look*, 0 to 1."""
    worked, total = (now - then for now, then in zip(cpu_times(), look, strict=True))
    return worked / total if total > 0 else 0.0


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def spread(values: Sequence[float]) -> str:
    """``3.4-4.1``: the range that a reader should keep in mind beside a median."""
    return f"{min(values):.2f}-{max(values):.2f}" if values else ""


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """*items*, begun at another one each round, so that none always follows the same."""
    if not items:
        return []
    by %= len(items)
    return [*items[by:], *items[:by]]


def tree_size(root: Path) -> tuple[int, int]:
    """Regular files below *root*, and their bytes."""
    files = size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if status.st_mode & 0o170000 == 0o100000:
                files += 1
                size += status.st_size
    return files, size


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for a terminal, too."""
    grid = [[cell.replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    # A ruler has a dash at least, beside the colon.
    widths = [max(2, *(len(row[column]) for row in grid)) for column in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    ruler = "| " + " | ".join(
        "-" * width if not column else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    )
    return "\n".join([line(grid[0]), ruler + " |", *map(line, grid[1:])])


def _first_line(name: str, option: str) -> str:
    tool = find_tool(name)
    if tool is None:
        return ""
    done = subprocess.run([tool, option], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else ""


def machine() -> dict[str, str]:
    """What the numbers were measured with: hardware, kernel and versions of the tools."""
    facts = {"kernel": platform.release(), "cores": str(cores())}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            facts["cpu"] = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            facts["memory"] = f"{int(line.split()[1]) / 1e6:.0f} GB"
            break
    facts["python"] = platform.python_version()
    facts["cachepod"] = _first_line("cachepod", "--version")
    facts["tar"] = _first_line("tar", "--version")
    facts["zstd"] = _first_line("zstd", "--version").strip("* ")
    facts["unsquashfs"] = _first_line("unsquashfs", "-version")
    facts["uv"] = _first_line("uv", "--version")
    return {name: value for name, value in facts.items() if value}


def print_machine(facts: Mapping[str, str]) -> None:
    """The heading of every benchmark's output."""
    for name, value in facts.items():
        print(f"{name:>10}  {value}")
    print()


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write *document* for a program to read, if a *path* was given."""
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
