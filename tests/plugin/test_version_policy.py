"""Which versions a configuration serves, and configurations that serve others."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from trimton.plugin.agent import check
from trimton.plugin.repository import parse_config
from trimton.plugin.version_policy import is_pinned, served_versions, with_served_versions

HERE = Path("config.pbtxt")
VERSIONS = st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True)
POLICIES = st.one_of(
    st.just(""),
    st.just("version_policy { all { } }\n"),
    st.builds("version_policy: {{ latest: {{ num_versions: {} }} }}\n".format, st.integers(1, 5)),
    VERSIONS.map(lambda v: f"version_policy {{ specific {{ versions: {v} }} }}\n"),
    VERSIONS.map(
        lambda v: (
            "version_policy: {\n  specific: {\n"
            + "".join(f"    versions: {n}  # because\n" for n in v)
            + "  }\n}\n"
        )
    ),
)
BEFORE, AFTER = '# why it is so\nbackend: "onnxruntime"\n', "max_batch_size: 8  # enough\n"


@given(POLICIES, VERSIONS)
def test_trimton_and_the_agent_s_check_agree_on_what_is_served(
    tmp_path_factory: pytest.TempPathFactory, policy: str, present: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("model")
    for version in present:
        (folder / str(version)).mkdir()
    config = parse_config(BEFORE + policy, HERE)
    served = served_versions(config, present)

    document = json_format.MessageToDict(config, preserving_proto_field_name=True)
    if served:
        assert check.served_versions(str(folder), document) == list(map(str, served))
    else:
        with pytest.raises(check.UnprovenError):
            check.served_versions(str(folder), document)


@given(POLICIES, VERSIONS)
def test_an_edited_configuration_serves_what_is_asked_and_says_the_rest_as_before(
    policy: str, wanted: list[int]
) -> None:
    text = BEFORE + policy + AFTER

    edited = with_served_versions(text, sorted(wanted))

    config, original = parse_config(edited, HERE), parse_config(text, HERE)
    assert is_pinned(config)
    assert served_versions(config, range(50)) == tuple(sorted(wanted))
    config.ClearField("version_policy")
    original.ClearField("version_policy")
    assert config == original
    assert "# why it is so" in edited
    assert "# enough" in edited


@given(VERSIONS, VERSIONS)
def test_there_and_back_gives_the_same_text(first: list[int], second: list[int]) -> None:
    start = with_served_versions(BEFORE + AFTER, first)

    assert with_served_versions(with_served_versions(start, second), first) == start


@pytest.mark.parametrize(
    "text",
    [
        'parameters { key: "}" value { string_value: "\\nversion_policy {" } }\n',
        'version_policy { specific { versions: 1 # } \n } }\nbackend: "a"\n',
        'backend: "a" version_policy { all {} }',
    ],
)
def test_what_cannot_be_edited_is_printed_anew(text: str) -> None:
    edited = parse_config(with_served_versions(text, [7]), HERE)

    assert served_versions(edited, [1, 7]) == (7,)
    original = parse_config(text, HERE)
    edited.ClearField("version_policy")
    original.ClearField("version_policy")
    assert edited == original


def test_without_a_configuration_the_latest_is_served() -> None:
    assert served_versions(None, [3, 1, 2]) == (3,)
    assert served_versions(None, []) == ()
