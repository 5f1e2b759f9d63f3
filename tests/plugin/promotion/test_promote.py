"""Promotion on the disk: what is moved, what is refused, what stays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trimton.core.errors import InputError
from trimton.plugin.promotion.candidate import NotPromotedError
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
from trimton.plugin.repository import Repository, config_digest

if TYPE_CHECKING:
    from tests.plugin.promotion.conftest import Shop

Content = Callable[[Path], dict[str, bytes]]


def test_a_promotion_serves_the_variant_and_keeps_the_baseline(shop: Shop) -> None:
    run = shop.run()
    before = (shop.model / "1" / "model.onnx").read_bytes()

    done = promote(run, [shop.repository])

    assert (done.version, done.before, done.after, done.changed) == (2, (1,), (2,), True)
    assert shop.served() == (2,)
    assert (shop.model / "1" / "model.onnx").read_bytes() == before
    assert (shop.model / "2" / "model.onnx").read_bytes() == (
        run / "variants" / "small" / "model.onnx"
    ).read_bytes()


def test_the_author_s_comments_and_settings_stay(shop: Shop) -> None:
    text = shop.config.read_text()

    promote(shop.run(), [shop.repository])

    assert shop.config.read_text().startswith(text)
    assert "versions: [ 2 ]" in shop.config.read_text().removeprefix(text)


def test_a_second_promotion_of_the_same_run_changes_nothing(shop: Shop, content: Content) -> None:
    run = shop.run()
    promote(run, [shop.repository])
    before = content(shop.repository)

    again = promote(run, [shop.repository])

    assert not again.changed
    assert again.version == 2
    assert content(shop.repository) == before


def test_rollbacks_go_back_further_and_further(shop: Shop) -> None:
    promote(shop.run("first"), [shop.repository])
    promote(shop.run("second"), [shop.repository])
    assert shop.served() == (3,)

    assert roll_back([shop.repository], "net").after == (2,)
    assert roll_back([shop.repository], "net").after == (1,)
    with pytest.raises(InputError, match="knows of nothing that 'net' served before"):
        roll_back([shop.repository], "net")
    assert shop.served() == (1,)
    assert Repository(shop.repository).model("net").versions == (1, 2, 3)


def test_a_rollback_may_name_its_version_and_be_rolled_back_itself(shop: Shop) -> None:
    promote(shop.run("first"), [shop.repository])
    promote(shop.run("second"), [shop.repository])

    assert roll_back([shop.repository], "net", RollbackTerms(to=1)).after == (1,)
    assert roll_back([shop.repository], "net", RollbackTerms(to=3)).after == (3,)
    assert roll_back([shop.repository], "net").after == (1,)
    with pytest.raises(InputError, match="has no version 9"):
        roll_back([shop.repository], "net", RollbackTerms(to=9))


def test_the_journal_tells_who_served_on_which_verdict(shop: Shop) -> None:
    run = shop.run()
    promote(run, [shop.repository])
    roll_back([shop.repository], "net", RollbackTerms(reason="complaints"))

    pin, forth, back = Journal(shop.repository).changes("net")

    assert [c.action for c in (pin, forth, back)] == ["pin", "promote", "rollback"]
    assert {c.phase for c in (pin, forth, back)} == {"committed"}
    assert (forth.before, forth.after) == ((1,), (2,))
    assert forth.details["run"] == str(run)
    assert forth.details["verdict"].startswith("sha256:")
    assert back.details["reason"] == "complaints"
    assert "@" in back.by


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_only_a_pass_is_promoted(shop: Shop, content: Content, outcome: Any) -> None:
    run = shop.run(outcome=outcome)
    before = content(shop.repository)

    with pytest.raises(NotPromotedError, match=f"is {outcome}, not pass"):
        promote(run, [shop.repository])

    assert content(shop.repository) == before


def test_force_promotes_all_the_same_and_is_written_down(shop: Shop) -> None:
    promote(shop.run(outcome="fail"), [shop.repository], PromotionTerms(force="incident 7"))

    assert shop.served() == (2,)
    assert Journal(shop.repository).changes("net")[-1].details["forced"] == "incident 7"


def test_a_baseline_that_changed_since_the_run_is_refused(shop: Shop, content: Content) -> None:
    run = shop.run()
    with (shop.model / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    before = content(shop.repository)

    with pytest.raises(NotPromotedError, match="serves other bytes"):
        promote(run, [shop.repository])

    assert content(shop.repository) == before


def test_a_verdict_against_what_served_earlier_is_refused(shop: Shop) -> None:
    early, late = shop.run("early"), shop.run("late")
    promote(late, [shop.repository])

    with pytest.raises(NotPromotedError, match="serves other bytes"):
        promote(early, [shop.repository])


def test_an_old_verdict_is_refused(shop: Shop) -> None:
    with pytest.raises(NotPromotedError, match="is 31 days old and counts for 30"):
        promote(shop.run(age_days=31), [shop.repository])


def test_what_was_rolled_back_does_not_come_back_on_the_same_verdict(shop: Shop) -> None:
    run = shop.run()
    promote(run, [shop.repository])
    roll_back([shop.repository], "net", RollbackTerms(reason="slow"))

    with pytest.raises(NotPromotedError, match=r"taken out of service on .* \(slow\)"):
        promote(run, [shop.repository])
    promote(run, [shop.repository], PromotionTerms(force="was another fault"))

    assert shop.served() == (3,)


def test_a_new_version_can_be_read_by_who_reads_the_others(shop: Shop) -> None:
    (shop.model / "1").chmod(0o750)

    promote(shop.run(), [shop.repository])

    modes = [path.stat().st_mode & 0o777 for path in (shop.model / "2").rglob("*")]
    assert (shop.model / "2").stat().st_mode & 0o777 == 0o750
    assert modes == [0o640]


def test_a_variant_that_changed_since_it_was_judged_is_refused(shop: Shop) -> None:
    run = shop.run()
    (run / "variants" / "small" / "model.onnx").write_bytes(b"other")

    with pytest.raises(InputError, match="has changed since it was judged"):
        promote(run, [shop.repository])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", "../net", "is not allowed"),
        ("model", "/etc", "is not allowed"),
        ("model", "other", "is in no repository"),
        ("candidate", "../../small", "is no name of a variant"),
        ("outcome", "pass", "contradicts itself"),
        ("created", "yesterday", "is no time"),
        ("created", "2026-01-01T00:00:00", "is no time"),
    ],
)
def test_a_hostile_verdict_is_refused_and_nothing_is_written(
    shop: Shop, content: Content, field: str, value: str, words: str
) -> None:
    run = shop.run(outcome="fail" if field == "outcome" else "pass")
    file = run / "verdict.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    before = content(shop.folder)

    with pytest.raises(InputError, match=words):
        promote(run, [shop.repository])

    assert content(shop.folder) == before


def test_the_gate_s_verdict_goes_before_the_run_s_own(shop: Shop) -> None:
    run = shop.run()
    document = json.loads((run / "verdict.json").read_text())
    document["outcome"] = document["variants"][0]["outcome"] = "fail"
    (run / "gate").mkdir()
    (run / "gate" / "verdict.json").write_text(json.dumps(document))

    with pytest.raises(NotPromotedError, match=r"gate/verdict\.json: .* is fail"):
        promote(run, [shop.repository])


@pytest.mark.parametrize("part", ["config.pbtxt", "1"])
def test_links_out_of_the_repository_are_refused(
    shop: Shop, content: Content, tmp_path: Path, part: str
) -> None:
    run = shop.run()
    outside = tmp_path / "outside"
    (shop.model / part).rename(outside)
    (shop.model / part).symlink_to(outside)
    before = content(shop.folder)

    with pytest.raises(InputError, match="is a link out of the repository"):
        promote(run, [shop.repository])

    assert content(shop.folder) == before


def test_a_link_in_the_variant_is_refused(shop: Shop, tmp_path: Path) -> None:
    run = shop.run()
    file = run / "variants" / "small" / "model.onnx"
    file.rename(tmp_path / "elsewhere.onnx")
    file.symlink_to(tmp_path / "elsewhere.onnx")

    with pytest.raises(InputError, match="is a link or no plain file"):
        promote(run, [shop.repository])

    assert Repository(shop.repository).model("net").versions == (1,)


def test_a_huge_or_unreadable_config_is_refused(shop: Shop) -> None:
    run = shop.run()
    with shop.config.open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="this is no configuration"):
        promote(run, [shop.repository])

    shop.config.write_bytes(b'backend: "\xff"')
    with pytest.raises(InputError, match="is not UTF-8"):
        promote(run, [shop.repository])

    shop.config.unlink()
    os.mkfifo(shop.config)
    with pytest.raises(InputError, match="is no plain file"):
        promote(run, [shop.repository])


def test_other_served_versions_stay_in_service(shop: Shop) -> None:
    (shop.model / "2").mkdir()
    (shop.model / "2" / "model.onnx").write_bytes(b"another")
    shop.config.write_text(shop.config.read_text() + "version_policy { all {} }\n")

    done = promote(shop.run(baseline=1), [shop.repository])

    assert (done.before, done.after) == ((1, 2), (2, 3))


def test_a_version_that_an_ensemble_insists_on_stays_in_service(shop: Shop) -> None:
    ensemble = shop.repository / "pipe"
    (ensemble / "1").mkdir(parents=True)
    (ensemble / "config.pbtxt").write_text(
        'platform: "ensemble"\n'
        'ensemble_scheduling { step { model_name: "net" model_version: 1 } }\n'
    )

    done = promote(shop.run(), [shop.repository])

    assert done.after == (1, 2)
    assert "the ensemble pipe insists on it" in done.notes[0]


def test_a_version_that_an_ensemble_insists_on_is_not_rolled_back(shop: Shop) -> None:
    promote(shop.run(), [shop.repository])
    (shop.repository / "pipe" / "1").mkdir(parents=True)
    (shop.repository / "pipe" / "config.pbtxt").write_text(
        'ensemble_scheduling { step { model_name: "net" model_version: 2 } }\n'
    )

    with pytest.raises(InputError, match="the ensemble pipe insists on version 2"):
        roll_back([shop.repository], "net")

    assert shop.served() == (2,)


def test_a_configuration_that_changed_since_the_run_is_refused(shop: Shop) -> None:
    config = Repository(shop.repository).model("net").config
    settings = {"model": {"config": config_digest(config)}, "policy": {}}
    run = shop.run(settings=settings)
    text = shop.config.read_text()
    shop.config.write_text(text + "dynamic_batching { max_queue_delay_microseconds: 900 }\n")

    with pytest.raises(NotPromotedError, match=r"config\.pbtxt: has changed since"):
        promote(run, [shop.repository])
    shop.config.write_text(f"# a comment\n{text}version_policy {{ specific {{ versions: 1 }} }}\n")
    promote(run, [shop.repository])

    assert shop.served() == (2,)


def test_an_ensemble_itself_is_refused_with_its_models(shop: Shop) -> None:
    run = shop.run()
    shop.config.write_text('ensemble_scheduling { step { model_name: "a" model_version: -1 } }\n')

    with pytest.raises(InputError, match=r"is an ensemble.*\(a\)"):
        promote(run, [shop.repository])


def test_the_right_one_of_several_repositories_is_found(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    run = shop.run()

    assert promote(run, [other, shop.repository]).changed
    (other / "net").mkdir()
    with pytest.raises(InputError, match="is in several repositories"):
        promote(run, [other, shop.repository])


def test_the_model_s_file_has_the_name_that_the_configuration_gives(shop: Shop) -> None:
    (shop.model / "1" / "model.onnx").rename(shop.model / "1" / "net.onnx")
    shop.config.write_text(shop.config.read_text() + 'default_model_filename: "net.onnx"\n')

    promote(shop.run(), [shop.repository])

    assert os.listdir(shop.model / "2") == ["net.onnx"]


def test_a_model_without_configuration_gets_the_measured_one(shop: Shop) -> None:
    run = shop.run()
    shop.config.unlink()

    promote(run, [shop.repository])

    written = Repository(shop.repository).model("net").config
    assert written is not None
    assert (written.max_batch_size, written.backend, written.name) == (4, "onnxruntime", "")
    assert shop.served() == (2,)


def test_the_configuration_is_younger_than_files_of_the_future(shop: Shop) -> None:
    future = time.time_ns() + 10**15
    os.utime(shop.model / "1" / "model.onnx", ns=(future, future))

    promote(shop.run(), [shop.repository])
    first = shop.config.stat().st_mtime_ns
    roll_back([shop.repository], "net")

    assert first > future
    assert shop.config.stat().st_mtime_ns > first
