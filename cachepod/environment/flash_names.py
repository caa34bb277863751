"""
The name of flash-attn's wheel, from what is installed.

Its releases have one wheel for each Python, torch, CUDA and C++ ABI. Their names tell all of it::

    flash_attn-2.8.0+cu12torch2.7cxx11abiTRUE-cp310-cp310-linux_x86_64.whl
               version  |   |        |        |           machine
                        |   |        |        Python
                        |   |        ABI of C++'s library, as torch was built
                        |   torch, without the patch release
                        CUDA, the major release
    Source: get_wheel_url in setup.py of flash-attn 2.7 and 2.8.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cachepod.environment.download import Unavailable
from cachepod.environment.flash_plan import MODULE

_ASK_TIMEOUT = 300.0  # seconds; importing torch from a cold disk

_ASK = """
import json, os, platform, sys, sysconfig
answer = os.fdopen(int(sys.argv[1]), "w")
facts = {"torch": "", "why": ""}
try:
    import torch
    facts["torch"] = str(torch.__version__)
    facts["cuda"] = str(torch.version.cuda or "")
    facts["hip"] = str(getattr(torch.version, "hip", None) or "")
    facts["abi"] = bool(torch.compiled_with_cxx11_abi())
except ModuleNotFoundError as error:
    facts["why"] = "" if error.name == "torch" else str(error)
except BaseException as error:
    facts["why"] = type(error).__name__ + ": " + str(error)
suffix = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
facts["python"] = "cp%d%d%s" % (*sys.version_info[:2], suffix)
facts["machine"] = platform.machine()
answer.write(json.dumps(facts))
answer.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Facts:
    """
    What is installed, as the name of a wheel has it.

    Args:
        python: ``cp310``.

        torch: ``2.7``.

        cuda: ``12``.

        abi: ``TRUE`` or ``FALSE``.

        machine: ``x86_64``.
    """

    python: str
    torch: str
    cuda: str
    abi: str
    machine: str

    @classmethod
    def of(cls, answer: Mapping[str, object]) -> Facts:
        """
        From what the environment's interpreter says.

        Raises:
            Unavailable: No wheel can fit, whatever its name.
        """
        torch = str(answer.get("torch", ""))
        if answer.get("why"):
            raise Unavailable(f"torch cannot be imported: {answer['why']}")
        if not torch:
            raise Unavailable("torch, which it needs, is not among what was installed")
        if answer.get("hip"):
            raise Unavailable(f"torch {torch} is built for ROCm, and its wheels are for CUDA")
        cuda = str(answer.get("cuda", ""))
        if not cuda:
            raise Unavailable(f"torch {torch} is built for the CPU, and no wheel of it is")
        return cls(
            python=str(answer["python"]),
            torch=".".join(torch.partition("+")[0].split(".")[:2]),
            cuda=cuda.partition(".")[0],
            abi="TRUE" if answer.get("abi") else "FALSE",
            machine=str(answer["machine"]),
        )

    def wheel(self, version: str) -> str:
        """The name of the wheel of *version*."""
        build = f"cu{self.cuda}torch{self.torch}cxx11abi{self.abi}"
        return f"{MODULE}-{version}+{build}-{self.tags}.whl"

    @property
    def tags(self) -> str:
        """The last three parts of a wheel's name."""
        return f"{self.python}-{self.python}-linux_{self.machine}"

    def __str__(self) -> str:
        return f"Python {self.python}, torch {self.torch}, CUDA {self.cuda}, C++ ABI {self.abi}"


def ask(python: Path) -> Mapping[str, object]:
    """
    What the interpreter *python* says of itself and of torch.

    Raises:
        Unavailable: It says nothing.
    """
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as answers:
        try:
            subprocess.run(
                [str(python), "-I", "-B", "-c", _ASK, str(writer)],
                pass_fds=(writer,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_ASK_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable("torch takes too long to be imported") from None
        finally:
            os.close(writer)
        text = answers.read()
    try:
        found = json.loads(text)
    except ValueError:
        raise Unavailable("the interpreter breaks down when torch is imported") from None
    return found if isinstance(found, dict) else {}
