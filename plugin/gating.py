"""Judging a finished run again, by a policy that is not its recipe's."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from trimton.core.errors import InputError
from trimton.core.files import replacing_folder, write_text
from trimton.perf.report.document import RunDocument
from trimton.plugin.judging import judge_again
from trimton.plugin.policy import PolicyFile
from trimton.plugin.policy_file import policy_for
from trimton.plugin.run_directory import GATE_FOLDER, MEASUREMENTS_NAME, VERDICT_NAME
from trimton.plugin.settings import BASELINE

JUNIT_NAME = "junit.xml"
SUMMARY_NAME = "summary.md"


def read_document(run: Path) -> RunDocument:
    """Everything that ``run`` measured; InputError where it is no finished run."""
    path = run / MEASUREMENTS_NAME
    try:
        return RunDocument.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: no measurements; give the directory of a finished run.") from (
            error
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: holds no measurements ({place}: {first['msg']}).") from error


def gate(
    run: Path, policy: PolicyFile, policy_path: Path, environment: str | None = None
) -> RunDocument:
    """Judge ``run`` by ``policy`` (read from ``policy_path``) as it is for ``environment``.

    Writes ``gate/`` into the run: ``verdict.json``, which then counts as the run's verdict,
    ``junit.xml`` and ``summary.md``, all or none. Raises InputError for an unknown environment, a
    run that is not finished, and a candidate that the run did not make.
    """
    document = read_document(run)
    asked = policy_for(
        policy,
        policy_path,
        model=document.model,
        environment=environment,
        candidate=document.verdict.candidate,
    )
    made = [entry.name for entry in document.variants if entry.name != BASELINE]
    if asked.candidate not in made:
        raise InputError(
            f"{policy_path}: candidate {asked.candidate!r} is no variant of {run} "
            f"(variants: {', '.join(made)})."
        )
    judged = judge_again(document, asked)
    _write(run / GATE_FOLDER, judged)
    return judged


def _write(folder: Path, document: RunDocument) -> None:
    from trimton.perf.report.junit import render_junit
    from trimton.perf.report.markdown import render_markdown

    with replacing_folder(folder) as temporary:
        write_text(temporary / JUNIT_NAME, render_junit(document))
        write_text(temporary / SUMMARY_NAME, render_markdown(document))
        write_text(temporary / VERDICT_NAME, document.verdict.model_dump_json(indent=1))
