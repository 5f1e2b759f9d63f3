"""Annotations that GitHub shows beside a job, and the summary of its page.

Source: "Workflow commands for GitHub Actions": ``::error title=…::message``, with %, line ends and
in properties : and , escaped; Markdown is appended to the file $GITHUB_STEP_SUMMARY, of which
GitHub shows 1 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from trimton.core.files import append_line
from trimton.perf.report.junit import check_text
from trimton.perf.verdict import Verdict

SUMMARY_BYTES_MAX = 1 << 20
_LEVELS = {"fail": "error", "inconclusive": "warning"}


def on_github(environment: Mapping[str, str]) -> bool:
    """Whether this is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def github_annotations(verdict: Verdict) -> Iterator[str]:
    """One line for each check of the candidate that does not hold."""
    title = _property(f"{verdict.model}: {verdict.candidate}")
    for variant in verdict.variants:
        if variant.variant == verdict.candidate:
            for check in variant.checks:
                if check.outcome in _LEVELS:
                    message = _escaped(check_text(check))
                    yield f"::{_LEVELS[check.outcome]} title={title}::{message}"


def append_summary(environment: Mapping[str, str], markdown: str) -> None:
    """Append ``markdown`` to the job's summary, where there is one and it has room for it."""
    path = environment.get("GITHUB_STEP_SUMMARY")
    if path and len(markdown.encode()) < SUMMARY_BYTES_MAX:
        append_line(Path(path), markdown)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
