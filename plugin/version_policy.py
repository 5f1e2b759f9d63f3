"""Which versions of a model a server serves, and a ``config.pbtxt`` that says other ones.

Triton's version policy is ``latest`` (n highest; 1 where nothing is said), ``all`` or
``specific``. Source: "Version Policy" in Triton's model configuration documentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from trimton.plugin.repository import ModelConfig

_POLICY_START = re.compile(r"^version_policy\s*:?\s*\{", re.MULTILINE)


def served_versions(config: ModelConfig | None, versions: Sequence[int]) -> tuple[int, ...]:
    """Those of the present ``versions`` that the policy of ``config`` serves, ascending."""
    present = sorted(versions)
    policy = None if config is None else config.version_policy
    kind = None if policy is None else policy.WhichOneof("policy_choice")
    if policy is not None and kind == "specific":
        return tuple(v for v in present if v in policy.specific.versions)
    if kind == "all":
        return tuple(present)
    count = int(policy.latest.num_versions) if policy is not None and kind == "latest" else 1
    return tuple(present[-max(count, 1) :])


def is_pinned(config: ModelConfig | None) -> bool:
    """Whether the policy names its versions, so that one more folder changes nothing."""
    return config is not None and config.version_policy.WhichOneof("policy_choice") == "specific"


def with_served_versions(text: str, versions: Sequence[int]) -> str:
    """``text`` of a valid config.pbtxt, changed to serve exactly ``versions``.

    Comments and order stay wherever only the policy has to be replaced. Protobuf has the last
    word: where the edited text does not mean what is wanted, it is printed anew from its meaning.
    """
    wanted = model_config_pb2.ModelConfig()
    text_format.Parse(text, wanted)
    wanted.ClearField("version_policy")
    wanted.version_policy.specific.versions.extend(versions)
    numbers = ", ".join(map(str, versions))
    line = f"version_policy: {{ specific: {{ versions: [ {numbers} ] }} }}\n"
    before, after = _without_policy(text)
    edited = before + line + after
    return edited if _means(edited, wanted) else text_format.MessageToString(wanted)


def _without_policy(text: str) -> tuple[str, str]:
    """``text`` before and after its policy; all of it before where there is none."""
    start = _POLICY_START.search(text)
    if start is None:
        return text if not text or text.endswith("\n") else text + "\n", ""
    depth, end = 1, start.end()
    while depth and end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[: start.start()], text[end:].removeprefix("\n")


def _means(text: str, wanted: ModelConfig) -> bool:
    found = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, found)
    except text_format.ParseError:
        return False
    return bool(found == wanted)
