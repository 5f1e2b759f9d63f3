"""What a run says of the variant that would ship, checked against what lies in its directory."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf import json_format, text_format

from trimton.core.errors import EXIT_FAIL, InputError, TrimtonError
from trimton.perf.verdict import Verdict
from trimton.plugin.proof import policy_digest, read_verdict
from trimton.plugin.recorded import Recorded, read_recorded
from trimton.plugin.repository import ModelConfig, check_model_name, config_from_json, path_digest
from trimton.plugin.run_directory import RECORDED_FOLDER, verdict_file
from trimton.plugin.settings import BASELINE
from trimton.plugin.staging import freeze_config

DEFAULT_MAX_AGE_DAYS = 30.0
_VERDICT_BYTES_MAX = 64 << 20
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class NotPromotedError(TrimtonError):
    """A variant must not go into service; nothing was changed."""

    exit_code = EXIT_FAIL


@dataclass(frozen=True)
class Candidate:
    """The variant that would ship. ``folder`` is its version folder in the run."""

    run: Path
    folder: Path
    verdict: Verdict
    verdict_file: Path
    verdict_digest: str

    @property
    def model(self) -> str:
        """The name of the model that was measured."""
        return self.verdict.model

    @property
    def digest(self) -> str:
        """path_digest of the variant."""
        return self.verdict.candidate_digest

    def repository(self) -> Path:
        """The repository that the baseline was read from; InputError where it is not known."""
        measured = self.verdict.settings.get("model", {}).get("repository", "")
        if not isinstance(measured, str) or not Path(measured).is_absolute():
            raise InputError(f"{self.run}: does not say which repository it is about; give --into.")
        return Path(measured)

    def recorded(self) -> Recorded:
        """Requests of the run and the candidate's answers; InputError where there are none."""
        recorded = read_recorded(self.run / RECORDED_FOLDER / f"{self.verdict.candidate}.npz")
        return replace(recorded, max_batch_size=int(self.config().max_batch_size))

    def config(self) -> ModelConfig:
        """The configuration that was measured: what the server resolved for the baseline."""
        path = self.run / "stages" / f"serve-{BASELINE}.json"
        try:
            resolved = json.loads(path.read_bytes())["result"]["config"]
            config = freeze_config(config_from_json(resolved))
        except (OSError, ValueError, KeyError, TypeError, json_format.ParseError) as error:
            raise InputError(
                f"{path}: does not say which configuration was measured; run the recipe again."
            ) from error
        config.ClearField("name")  # that of the staged baseline
        return config

    def config_text(self) -> str:
        """``config`` as text, for a model without a ``config.pbtxt``.

        Without one, a server would complete it anew from the variant, and might leave out batching.
        """
        return str(text_format.MessageToString(self.config()))

    def details(self) -> dict[str, str]:
        """What the journal keeps of it."""
        return {
            "digest": self.digest,
            "variant": self.verdict.candidate,
            "run": str(self.run.absolute()),
            "verdict": self.verdict_digest,
            "outcome": self.verdict.outcome,
            "policy": policy_digest(self.verdict),
        }


def read_candidate(run: Path) -> Candidate:
    """The candidate of the finished run in the directory ``run``.

    Raises InputError for a run without a verdict, a verdict with names that are no names, and a
    variant that is missing or has changed since it was judged.
    """
    file = verdict_file(run)
    if file.exists() and (not file.is_file() or file.stat().st_size > _VERDICT_BYTES_MAX):
        raise InputError(f"{file}: is no verdict; give the directory of a finished run.")
    verdict = read_verdict(file)
    check_model_name(verdict.model)
    if not _VARIANT_NAME.fullmatch(verdict.candidate):
        raise InputError(f"{file}: {verdict.candidate!r} is no name of a variant.")
    judged = (verdict.candidate, verdict.candidate_digest, verdict.outcome)
    if judged not in [(v.variant, v.digest, v.outcome) for v in verdict.variants]:
        raise InputError(f"{file}: contradicts itself about {verdict.candidate}; judge it again.")
    folder = run / "variants" / verdict.candidate
    if not folder.is_dir() or folder.is_symlink():
        raise InputError(f"{folder}: is missing, so the run cannot be promoted; run it again.")
    if path_digest(folder) != verdict.candidate_digest:
        raise InputError(f"{folder}: has changed since it was judged; run the recipe again.")
    return Candidate(run, folder, verdict, file, path_digest(file))


def refuse_unproven(candidate: Candidate, max_age_days: float = DEFAULT_MAX_AGE_DAYS) -> None:
    """NotPromotedError unless the verdict is a pass, and not older than ``max_age_days``."""
    verdict, file = candidate.verdict, candidate.verdict_file
    if verdict.outcome != "pass":
        raise NotPromotedError(
            f"{file}: the verdict on {verdict.candidate} is {verdict.outcome}, not pass; "
            "see the report of the run."
        )
    age_days = _age_days(verdict.created, file)
    if age_days > max_age_days:
        raise NotPromotedError(
            f"{file}: the verdict is {age_days:.0f} days old and counts for {max_age_days:g}; "
            "run the recipe again."
        )


def _age_days(created: str, file: Path) -> float:
    try:
        moment = datetime.datetime.fromisoformat(created)
        age = datetime.datetime.now(datetime.UTC) - moment
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: {created!r} is no time with a zone.") from error
    return age / datetime.timedelta(days=1)
