"""Memory and processor time of a process. Imports nothing of ours: what is measured must not grow by being measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def resident_mb(pid: int | str = "self", field_name: str = "VmHWM") -> float:
    """Peak resident memory (``VmRSS``: resident now) of a process, in megabytes of 2^20 bytes.

    From /proc, as ``ru_maxrss`` starts with what the parent had; where there is no /proc, that is what there is.
    """
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(re.search(rf"{field_name}:\s+(\d+)", status.read_text())[1]) / 1024  # type: ignore[index]
    if pid != "self":
        answer = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
        return int(answer.stdout) / 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 * 1024 if sys.platform == "darwin" else 1024)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    answer = subprocess.run(["ps", "-o", "cputime=", "-p", str(pid)], capture_output=True, text=True, check=True)
    seconds = 0.0
    for part in re.split(r"[:-]", answer.stdout.strip()):
        seconds = seconds * 60 + float(part)
    return seconds
