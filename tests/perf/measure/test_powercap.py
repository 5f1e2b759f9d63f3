"""Energy from a powercap tree as the kernel lays it out."""

from __future__ import annotations

import pytest

from trimton.perf.load.window import Window
from trimton.perf.measure.powercap import PowercapProbe, find_zones


@pytest.fixture
def powercap(tmp_path):
    """Two packages, one with memory beside it, and zones that would count twice."""

    def zone(folder, name, energy_uj, range_uj=262_143_328_850):
        path = tmp_path / folder
        path.mkdir()
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{energy_uj}\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")

    zone("intel-rapl:0", "package-0", 1_000_000)
    zone("intel-rapl:0:0", "core", 1)
    zone("intel-rapl:0:1", "dram", 5_000_000)
    zone("intel-rapl:1", "package-1", 9_000_000, range_uj=9_999_999)
    zone("intel-rapl:2", "psys", 1)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def set_uj(root, zone, value):
    (root / zone / "energy_uj").write_text(f"{value}\n")


def test_zones_cover_the_machine_without_overlap(powercap):
    assert [zone.name for zone in find_zones(powercap)] == ["package-0", "dram-0", "package-1"]


def test_energy_is_the_growth_of_each_counter_and_a_wrap_is_undone(powercap):
    probe = PowercapProbe(powercap)
    probe.before()
    set_uj(powercap, "intel-rapl:0", 3_500_000)
    set_uj(powercap, "intel-rapl:1", 500_000)
    found = probe.after(Window(0, 0))
    assert found == {"energy_j": {"package-0": 2.5, "dram-0": 0.0, "package-1": 1.5}}


def test_a_machine_without_powercap_is_named(tmp_path):
    probe = PowercapProbe(tmp_path / "none")
    probe.before()
    assert probe.after(Window(0, 0)) == {
        "missing": {"energy": "this machine has no powercap counters"}
    }


def test_counters_that_only_root_may_read_are_named(powercap, monkeypatch):
    counter = powercap / "intel-rapl:0" / "energy_uj"

    def refuse(path, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    probe = PowercapProbe(powercap)
    # Tests may run as root, who may read anything.
    monkeypatch.setattr(type(counter), "read_text", refuse)
    probe.before()
    assert probe.after(Window(0, 0)) == {
        "missing": {"energy": f"{counter} is readable by root only"}
    }
