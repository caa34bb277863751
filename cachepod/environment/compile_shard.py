"""
Compile the Python files named on standard input; run by the environment's own interpreter.

Not part of the package as such: :mod:`cachepod.environment.bytecode` starts it as a script, in a
fresh process for every shard, because what marshal writes depends on what the process has done
before. It must run on any CPython that an environment may have, with no site-packages.

Standard input: records separated by NUL, each ``w`` (write its .pyc) or ``-`` (compile it, for
the same history, but leave its .pyc alone) and the path of a source. Standard output: one line,
``<files written> <bytes written>``.
"""

import sys

del sys.path[0]  # this script's folder: none of its modules may shadow one of Python's

import errno  # noqa: E402
import importlib.util  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402


def main() -> None:
    """Do it."""
    written = size = 0
    for record in sys.stdin.buffer.read().split(b"\0"):
        if not record:
            continue
        path = os.fsdecode(record[1:])
        try:
            with open(path, "rb") as file:
                source = file.read()
            code = compile(source, path, "exec", dont_inherit=True)
            body = marshal.dumps(code)
        except OSError:
            continue  # gone meanwhile
        except Exception:
            # A template, or a test for another version of Python: pip leaves it alone, too.
            continue
        if record[:1] == b"w":
            status = os.stat(path)
            head = importlib.util.MAGIC_NUMBER + b"".join(
                number.to_bytes(4, "little")
                for number in (0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
            )
            try:
                write(path, status, head + body)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    sys.exit(error.errno)
                continue  # a directory that is not ours to write
            written += 1
            size += len(head) + len(body)
    print(written, size)


def write(path: str, status: os.stat_result, content: bytes) -> None:
    """Put the .pyc of the source at *path* in place, whole and with the source's mtime."""
    target = importlib.util.cache_from_source(path)
    temporary = f"{target}.{os.getpid()}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = status.st_mode & 0o666 | 0o200
    try:
        with open(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            file.write(content)
        os.utime(temporary, ns=(status.st_mtime_ns, status.st_mtime_ns))
        os.replace(temporary, target)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise


if __name__ == "__main__":
    main()
