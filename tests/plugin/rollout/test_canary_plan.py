"""What a canary's options mean, and which are refused."""

from __future__ import annotations

import pytest

from trimton.core.errors import InputError
from trimton.plugin.cli.main import main
from trimton.plugin.rollout.canary import window_s
from trimton.plugin.rollout.plan import CanaryPlan, parse_hold, parse_shares


def test_shares_and_times_are_read() -> None:
    assert parse_shares("5,25,100") == (5, 25, 100)
    assert [parse_hold(text) for text in ("60s", "1.5m", "2h")] == [60, 90, 7200]


@pytest.mark.parametrize("text", ["", "5;100", "5%", "five"])
def test_shares_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"5,25,100"):
        parse_shares(text)


@pytest.mark.parametrize("text", ["60", "1d", "-5s", "s", ""])
def test_times_without_a_unit_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="60s, 5m or 1h"):
        parse_hold(text)


@pytest.mark.parametrize(
    ("shares", "options"),
    [
        ((), {}),
        ((5, 25), {}),
        ((25, 5, 100), {}),
        ((5, 5, 100), {}),
        ((0, 100), {}),
        ((float("nan"), 100), {}),
        ((100,), {"hold_s": 0}),
        ((100,), {"hold_s": 1e6}),
        ((100,), {"rate_rps": 0}),
        ((100,), {"rate_rps": float("nan")}),
        ((100,), {"max_regression_pct": 0}),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    shares: tuple[float, ...], options: dict[str, float]
) -> None:
    with pytest.raises(InputError, match="--"):
        CanaryPlan(shares, **options)  # type: ignore[arg-type]


def test_a_window_holds_some_requests_within_its_limits() -> None:
    assert [window_s(rate) for rate in (0.1, 10, 1000)] == [10, 2.5, 0.5]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--canary", "5,25"], "rise to 100"),
        (["--canary", "100", "--hold", "60"], "60s, 5m or 1h"),
        (["--canary", "100", "--rate", "0"], "--rate"),
        (["--rate", "10"], "give --canary"),
    ],
)
def test_the_command_refuses_a_wrong_canary_before_it_reads_anything(
    capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["promote", "/no/such/run", *options])

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
