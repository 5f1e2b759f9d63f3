"""The rows that every renderer shows, against the document they come from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trimton.perf.report.cells import Cell
from trimton.perf.report.document import RunDocument
from trimton.perf.report.facts import fact_groups, server_text
from trimton.perf.report.headline import headline, highlights, other_verdicts
from trimton.perf.report.numbers import number_text
from trimton.perf.report.rows import (
    Load,
    check_groups,
    filled,
    loads,
    notes,
    roles,
    speed_rows,
    variant_rows,
)
from trimton.perf.report.transform_rows import transform_rows
from trimton.perf.results import Interval

MakeDocument = Callable[..., RunDocument]


def agrees(text: str, value: float) -> bool:
    """True where ``text`` is ``value`` to half a unit of its last digit."""
    decimals = len(text.partition(".")[2])
    return abs(float(text.replace(",", "")) - value) <= 0.5 * 10**-decimals * (1 + 1e-9)


def bounds(cell: Cell) -> list[str]:
    return cell.interval.strip("[]").split(", ")


def test_every_figure_of_speed_is_the_levels_own(document: RunDocument) -> None:
    levels = {(lv.variant, lv.concurrency): lv for lv in document.levels}
    rows = speed_rows(document)
    assert [(row.load.concurrency, row.name) for row in rows] == [
        (concurrency, name)
        for concurrency in (1, 4)
        for name in ("baseline", "fused", "fused_int8")
    ]
    for row in rows:
        level = levels[row.name, row.load.concurrency]
        measured: dict[str, Interval | None] = {
            "throughput": level.throughput_rps,
            "p50": level.latency_ms.p50,
            "p95": level.latency_ms.p95,
            "p99": level.latency_ms.p99,
        }
        for key, interval in measured.items():
            assert interval is not None
            cell = row.cells[key]
            assert agrees(cell.text, interval.value), (row.name, key)
            for text, end in zip(bounds(cell), (interval.low, interval.high), strict=True):
                assert end is not None
                assert agrees(text, end), (row.name, key)
        assert row.cells["requests"].text == f"{level.requests:,}"
        assert row.cells["errors"].text == "0"


def test_every_ratio_and_outcome_is_the_comparisons_own(document: RunDocument) -> None:
    columns = {
        "throughput_rps": "throughput",
        "latency_p95_ms": "p95",
        "cpu_ms_per_inference": "cpu",
    }
    cells = {(row.name, row.load.concurrency): row.cells for row in speed_rows(document)}
    seen = 0
    for variant, comparisons in document.comparisons.items():
        for comparison in comparisons:
            metric = comparison.name.partition("@")[0]
            if metric not in columns:
                continue
            assert comparison.concurrency is not None
            cell = cells[variant, comparison.concurrency][columns[metric]]
            assert agrees(cell.ratio.removesuffix("×"), comparison.ratio)
            assert cell.outcome == comparison.outcome
            seen += 1
    assert seen == 2 * 2 * 3
    assert all(not cell.ratio for cell in cells["baseline", 1].values())


def test_every_figure_of_the_models_is_the_documents_own(document: RunDocument) -> None:
    mebibyte = 1024 * 1024
    baseline = document.variants[0]
    for row, entry, quality, memory in zip(
        variant_rows(document), document.variants, document.quality, document.memory, strict=True
    ):
        cells = row.cells
        assert quality.accuracy is not None
        assert agrees(cells["accuracy"].text, 100 * quality.accuracy.value)
        assert agrees(cells["size"].text.removesuffix(" MiB"), entry.size_bytes / mebibyte)
        pss = memory.under_load_pss_bytes / mebibyte
        assert agrees(cells["memory"].text.removesuffix(" MiB"), pss)
        assert cells["nodes"].text == str(entry.nodes)
        if entry is not baseline:
            assert agrees(cells["agreement"].text, 100 * quality.agreement.value)
            ratio = entry.size_bytes / baseline.size_bytes
            assert agrees(cells["size"].ratio.removesuffix("×"), ratio)


def test_a_percentile_without_enough_requests_says_how_many_it_needs(
    make_document: MakeDocument,
) -> None:
    cells = speed_rows(make_document(rounds=2, window_s=0.2, concurrencies=(1,)))[0].cells
    assert (cells["p99"].text, cells["p99"].note) == ("–", "needs 459 requests")
    assert cells["p50"].text != "–"
    assert cells["p50"].note == ""


def test_memory_tells_the_readings_behind_it(document: RunDocument) -> None:
    mebibyte = 1024 * 1024
    readings = (180 * mebibyte, 183 * mebibyte, 191 * mebibyte)
    first = document.memory[0].model_copy(update={"under_load_readings": readings})
    rows = variant_rows(document.model_copy(update={"memory": (first, *document.memory[1:])}))
    assert rows[0].cells["memory"].note == "3 fresh servers, 180 MiB to 191 MiB"
    assert rows[1].cells["memory"].note == ""


def test_identical_outputs_are_called_identical_and_not_infinitely_good(
    document: RunDocument,
) -> None:
    quality = [q.model_copy(update={"sqnr_db": None}) for q in document.quality]
    rows = variant_rows(document.model_copy(update={"quality": tuple(quality)}))
    assert [row.cells["sqnr"].text for row in rows] == ["–", "identical", "identical"]


def test_roles_name_the_baseline_and_the_candidate(document: RunDocument) -> None:
    assert roles(document) == {"baseline": "baseline", "fused": "", "fused_int8": "candidate"}


def test_a_batch_shows_in_the_load_only_where_it_is_not_one() -> None:
    assert Load(4, 1).text == "concurrency 4"
    assert Load(4, 8).text == "concurrency 4, batch 8"


def test_loads_come_lightest_first(document: RunDocument) -> None:
    turned = document.model_copy(update={"levels": tuple(reversed(document.levels))})
    assert loads(turned) == [Load(1, 1), Load(4, 1)]


def test_checks_of_the_candidate_come_first_with_readable_units(document: RunDocument) -> None:
    first, second = check_groups(document)
    assert (first.variant, first.is_candidate) == ("fused_int8", True)
    assert (second.variant, second.is_candidate) == ("fused", False)
    told = [(c.metric, c.observed, c.interval, c.asked, c.samples) for c in first.checks]
    assert told == [
        ("accuracy", "0.21 pp", "[-0.18, 0.59]", "lost at most 1 pp", "2,000"),
        ("size_bytes", "73.7 %", "", "better by at least 50 %", "1"),
        ("memory_bytes", "146 MiB", "", "at most 190 MiB", "1"),
        ("throughput_rps @ 4", "-3.10 %", "[-4.20, -1.90]", "worse by at most 3 %", "6"),
    ]


def test_a_check_that_observed_nothing_shows_no_figure(document: RunDocument) -> None:
    judged = document.verdict.variants[-1]
    blind = judged.checks[0].model_copy(update={"samples": 0, "outcome": "inconclusive"})
    verdict = document.verdict.model_copy(
        update={"variants": (judged.model_copy(update={"checks": (blind,)}),)}
    )
    [group] = check_groups(document.model_copy(update={"verdict": verdict}))
    assert (group.checks[0].observed, group.checks[0].interval) == ("–", "")


@pytest.mark.parametrize(
    ("outcome", "exit_code", "words"),
    [
        ("pass", 0, "fused may ship in place of baseline: all 4 checks hold."),
        (
            "fail",
            1,
            "fused must not ship: 1 of 4 checks failed against baseline (throughput_rps @ 4).",
        ),
        (
            "inconclusive",
            3,
            "fused is not proven: 1 of 4 checks against baseline could not be decided",
        ),
    ],
)
def test_the_headline_says_what_the_outcome_means(
    make_document: MakeDocument, outcome: str, exit_code: int, words: str
) -> None:
    found = headline(make_document(names=("baseline", "fused"), concurrencies=(), outcome=outcome))
    assert (found.outcome, found.exit_code) == (outcome, exit_code)
    assert found.sentence.startswith(words)


def test_the_verdicts_of_the_other_variants_are_told_in_one_line(
    make_document: MakeDocument,
) -> None:
    others = other_verdicts(make_document(concurrencies=(), outcome="fail"))
    assert others == ["fused: would fail (throughput_rps @ 4)"]


def test_highlights_are_the_candidates_at_the_heaviest_load(document: RunDocument) -> None:
    found = {highlight.title: highlight for highlight in highlights(document)}
    assert list(found) == [
        "Size",
        "Memory under load",
        "Accuracy",
        "Agreement with the baseline",
        "Throughput, concurrency 4",
        "p95 latency, concurrency 4",
    ]
    [row] = [r for r in speed_rows(document) if r.load.concurrency == 4 and r.role == "candidate"]
    assert found["Throughput, concurrency 4"].candidate == row.cells["throughput"]


def test_a_baseline_that_is_its_own_candidate_has_no_highlights(
    make_document: MakeDocument,
) -> None:
    assert highlights(make_document(names=("baseline",), concurrencies=())) == []


def test_notes_tell_gaps_and_errors_once(make_document: MakeDocument) -> None:
    run = make_document(
        rounds=3, window_s=0.5, errors=2, with_labels=False, with_memory=False, concurrencies=(1,)
    )
    told = notes(run)
    assert sum("labels" in note for note in told) == 1
    assert "Memory was not measured." in told
    [failed] = [note for note in told if "requests failed" in note]
    assert failed.startswith("18 requests failed and are not in the latencies: baseline at")
    assert sum(note.startswith("fused at concurrency 1: ") for note in told) == 1


def test_what_was_not_measured_of_the_server_is_named_once(document: RunDocument) -> None:
    missing = {"gpu": "the server reports no GPU", "energy": "no counters"}
    levels = tuple(level.model_copy(update={"missing": missing}) for level in document.levels)
    told = notes(document.model_copy(update={"levels": levels}))
    expected = "Not measured of the server: energy: no counters; gpu: the server reports no GPU."
    assert told.count(expected) == 1
    assert not any("Not measured" in note for note in notes(document))


def test_a_ratio_says_what_difference_would_have_been_found(document: RunDocument) -> None:
    ratios = [row.cells["throughput"] for row in speed_rows(document) if row.role != "baseline"]
    found = {c.name: c for c in document.comparisons["fused"]}["throughput_rps@1"]
    text = number_text(found.detectable_pct)
    assert ratios[0].note == f"{text} % would have been found in 80 of 100 such comparisons"
    assert all(cell.note for cell in ratios)


def test_energy_has_a_column_where_it_was_measured(document: RunDocument) -> None:
    assert not filled(speed_rows(document), "energy")
    levels = tuple(
        level.model_copy(update={"energy_mj_per_inference": 12.5}) for level in document.levels
    )
    rows = speed_rows(document.model_copy(update={"levels": levels}))
    assert filled(rows, "energy")
    assert {row.cells["energy"].text for row in rows} == {"12.5"}


def test_transforms_keep_their_order_and_group_what_they_left_alone_by_reason(
    document: RunDocument,
) -> None:
    baseline, _, candidate = transform_rows(document)
    assert baseline.transforms == ()
    assert [transform.name for transform in candidate.transforms] == ["fuse", "quantize"]
    fuse, quantize = candidate.transforms
    assert fuse.steps == (("BatchNormalization folded into Conv", "17"),)
    assert [(row.why, row.what) for row in fuse.skipped] == [
        ("both inputs are activations", ("/block3/Add", "/block4/Add"))
    ]
    assert fuse.skipped_count == 2
    assert fuse.difference == "8.30e-07"
    costs = {cost.title: (cost.before, cost.after, cost.ratio) for cost in quantize.costs}
    assert costs["Size"] == ("4.57 MiB", "1.21 MiB", "0.26×")
    assert costs["Nodes"] == ("46", "138", "3.00×")


def test_facts_turn_keys_with_units_into_labels_and_values(document: RunDocument) -> None:
    groups = {group.title: dict(group.lines) for group in fact_groups(document)}
    assert groups["Hardware"]["memory total"] == "16.0 GiB"
    assert groups["Hardware"]["instruction sets"] == "avx2, fma, avx512f, avx512_vnni"
    assert groups["Hardware"]["int8 dot product"] == "yes"
    assert groups["Settings"]["window"] == "2 s"
    assert groups["Settings"]["concurrency"] == "1, 4"
    assert groups["Server"] == {"name": "triton", "version": "2.59.0"}


def test_nested_settings_become_groups_with_paths(document: RunDocument) -> None:
    settings = {
        "seed": 1,
        "policy": {"limits": {"size_bytes": {"min_improvement_pct": 65.0}}},
        "variants": {"small": {"steps": [{"step": "fuse"}, {"step": "quantize"}]}},
    }
    run = document.model_copy(update={"settings": settings})
    groups = {group.title: dict(group.lines) for group in fact_groups(run)}
    assert groups["Settings"] == {"seed": "1"}
    assert groups["Policy"] == {"limits · size_bytes · min improvement": "65 %"}
    assert groups["Variants"] == {
        "small · steps · 1 · step": "fuse",
        "small · steps · 2 · step": "quantize",
    }


def test_a_run_without_a_server_names_none(document: RunDocument) -> None:
    assert server_text(document) == "triton 2.59.0"
    assert server_text(document.model_copy(update={"environment": {}})) == ""
