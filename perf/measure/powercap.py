"""Energy of the processor packages and their memory, from Linux powercap (RAPL).

Source: Linux kernel, "Power Capping Framework": each zone below ``/sys/class/powercap`` has a
counter ``energy_uj`` that starts again from zero beyond ``max_energy_range_uj``. It counts the
whole package, idle power and every other program included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimton.perf.load.tally import Tally
from trimton.perf.measure.probes import Probe

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Zone:
    """A counter of energy; ``range_uj`` is where it wraps around, in microjoules."""

    name: str
    counter: Path
    range_uj: int

    def read_uj(self) -> int:
        """The counter now; OSError where it may not be read."""
        return int(self.counter.read_text())

    def joules_between(self, before_uj: int, after_uj: int) -> float:
        """The energy between two readings, at most one wrap apart."""
        spent_uj = after_uj - before_uj
        return (spent_uj if spent_uj >= 0 else spent_uj + self.range_uj + 1) / 1e6


def find_zones(root: Path = POWERCAP) -> tuple[Zone, ...]:
    """The zones that add up to the machine without overlap: packages, and memory beside them.

    Parts of a package (``core``, ``uncore``) and the platform as a whole (``psys``) are left out.
    """
    zones = []
    for folder in sorted(root.glob("intel-rapl:*")):
        try:
            kind = (folder / "name").read_text().strip()
            range_uj = int((folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
        if kind.startswith("package"):
            zones.append(Zone(kind, folder / "energy_uj", range_uj))
        elif kind == "dram":
            package = folder.name.split(":")[1]
            zones.append(Zone(f"dram-{package}", folder / "energy_uj", range_uj))
    return tuple(zones)


class PowercapProbe(Probe):
    """Joules of each zone over a window; where there is none, ``missing`` says why."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._root = root
        self._zones = find_zones(root)
        self._before_uj: tuple[int, ...] = ()
        self._fault: str | None = None if self._zones else "this machine has no powercap counters"

    def before(self) -> None:
        self._before_uj = self._read()

    def after(self, window: Tally) -> Mapping[str, Any]:
        after_uj = self._read()
        if self._fault is not None:
            return {"missing": {"energy": self._fault}}
        return {
            "energy_j": {
                zone.name: zone.joules_between(start, end)
                for zone, start, end in zip(self._zones, self._before_uj, after_uj, strict=True)
            }
        }

    def _read(self) -> tuple[int, ...]:
        if self._fault is not None:
            return ()
        try:
            return tuple(zone.read_uj() for zone in self._zones)
        except PermissionError as error:
            self._fault = f"{error.filename} is readable by root only"
        except (OSError, ValueError) as error:
            self._fault = f"powercap cannot be read ({error})"
        return ()
