"""CPU and memory of the parts of a measurement: client, proxy, database, pooler."""

import os
import time
from dataclasses import dataclass, field

import psutil

MIB = 1048576


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time, as clock_getcpuclockid(3) makes it; /proc counts in steps of 10 ms."""
    return ~pid << 3 | 2


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of its living descendants, and of children that it has waited for."""
    total = 0.0
    for process in _tree(pid):
        try:
            total += time.clock_gettime(_cpu_clock(process.pid))
            if process.pid == pid:
                times = process.cpu_times()
                total += times.children_user + times.children_system
        except (OSError, psutil.NoSuchProcess):
            continue
    return total


def memory_mib(pid: int) -> float:
    """Memory that a process and its descendants have, what they share counted once, in MiB."""
    own = shared = 0
    for process in _tree(pid):
        try:
            info = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        own += info.rss - info.shared
        shared = max(shared, info.shared)
    return (own + shared) / MIB


@dataclass
class Usage:
    """What parts used during one run; ``pids`` names each part's main process."""

    pids: dict[str, int]
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    def begin(self) -> "Usage":
        self.cpu = {part: -cpu_seconds(pid) for part, pid in self.pids.items()}
        return self

    def end(self) -> None:
        for part, pid in self.pids.items():
            self.cpu[part] += cpu_seconds(pid)
            self.memory[part] = memory_mib(pid)


def busiest(cores: dict[str, float]) -> str:
    """In words: the part that used most, and whether the machine had anything left."""
    if not cores:
        return ""
    part, used = max(cores.items(), key=lambda item: item[1])
    total, count = sum(cores.values()), os.cpu_count() or 1
    full = f"; all {count} cores busy" if total >= 0.9 * count else ""
    return f"{part} ({used:.2f} cores{full})"
