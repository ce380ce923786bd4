"""The machine and the versions that figures belong to.

Owns: what of them stands on the page.
Must not know: the figures.
Invariant: names of hosts, users and folders never stand there.
"""

import os
import platform
from importlib import metadata

import psutil

LIBRARIES = ("numba", "numpy", "lightgbm", "pyqlib", "pandas", "KunQuant", "redis")


def describe_machine() -> dict[str, str]:
    """Return facts by name, in the order in which they are told."""
    versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return {
        "processor": f"{_processor()}, {psutil.cpu_count()} cores seen",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": versions,
    }


def load_average() -> float:
    """Return how many processes wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a file of the kernel
            found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        found = []
    return found[0] if found else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
