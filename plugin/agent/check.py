"""Does a signed proof cover exactly the bytes that a server is about to load?

Triton's agent runs this file with a time limit, in any Python from 3.9 on and with the standard
library alone:

    python3 -I -S -B check.py LOCATION KEY_FILE POLICY REDIRECT < configuration.json

LOCATION is the model's folder; the configuration is the one that the server holds, as JSON;
POLICY is the digest that proofs must be of, REDIRECT the folder that is to be served instead, ""
for none. The answer is one line, ``allow``, ``redirect`` or ``veto``, a tab, and a text.

A proof is an in-toto statement in a DSSE envelope (https://github.com/secure-systems-lab/dsse,
https://in-toto.io/Statement/v1), signed with HMAC-SHA256. It lies beside the version:
``<model>/<version>.proof.json``; one that was made ahead of a change of the configuration is
``<model>/<version>.<start of the configuration's SHA-256>.proof.json``, and goes before the other.
"""

from __future__ import annotations

# The server holds a lock meanwhile, and starting an interpreter is most of a check. So: nothing
# that imports re, which alone would double that time (typing, json, base64).
import binascii
import hashlib
import hmac
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from typing import Any

CONFIG_NAME = "config.pbtxt"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:trimton:proof:v1"

KEY_BYTES = 32
PROOF_BYTES_MAX = 16 << 20
CONFIG_BYTES_MAX = 4 << 20
CLOCK_SKEW_S = 300  # how far ahead of this host's clock the signer's may be
CONFIG_NAMED_BY = 16  # hexadecimal digits
_CHUNK_BYTES = 1 << 20
# What the server writes for a field that is not set, besides leaving it out.
_UNSET: tuple[Any, ...] = (None, "", "0", 0, False, [], {})


class UnprovenError(Exception):
    """Why a model is not loaded, in one sentence."""


# --- bytes ---------------------------------------------------------------------------------------


def version_digests(folder: str, version: str) -> dict[str, str]:
    """SHA-256 (hex) of every file of ``folder``/``version``, by its name relative to ``folder``.

    Raises UnprovenError for an empty version and for anything in it that is no plain file or
    folder: a link may lead anywhere tomorrow, a pipe may never end.
    """
    digests = {}
    pending = [version]
    while pending:
        name = pending.pop()
        path = os.path.join(folder, name)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise UnprovenError(f"{path} is a link or no folder; copy the files into the version.")
        for entry in os.listdir(path):
            below = f"{name}/{entry}"
            if stat.S_ISDIR(os.lstat(os.path.join(folder, below)).st_mode):
                pending.append(below)
            else:
                digests[below] = file_digest(os.path.join(folder, below))
    if not digests:
        raise UnprovenError(f"{os.path.join(folder, version)} holds no file.")
    return digests


def file_digest(path: str) -> str:
    """SHA-256 (hex) of a plain file; UnprovenError for links and for files that are not plain."""
    total = hashlib.sha256()
    with _open_plain(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


def _read_plain(path: str, bytes_max: int) -> bytes:
    with _open_plain(path) as stream:
        data = stream.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise UnprovenError(f"{path} is over {bytes_max} bytes.")
    return data


def _open_plain(path: str) -> io.BufferedReader:
    # The file that was opened is the file that is looked at; no link, no waiting for a pipe.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path):
            raise UnprovenError(f"{path} is a link; copy the file itself.") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnprovenError(f"{path} is no plain file.")
    return os.fdopen(descriptor, "rb")


# --- the envelope --------------------------------------------------------------------------------


def read_key(path: str) -> bytes:
    """The key in a file of 64 hexadecimal digits that is closed to other users."""
    if not path:
        raise UnprovenError("no key is named; set key_file or TRIMTON_AGENT_KEY_FILE.")
    if not os.path.isabs(path):
        raise UnprovenError(f"key_file is {path!r}; give the absolute path of the key.")
    try:
        with open(path, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read(4 * KEY_BYTES)
    except OSError as error:
        raise UnprovenError(f"the key {path} cannot be read ({_reason(error)}).") from error
    if mode & stat.S_IRWXO:
        raise UnprovenError(
            f"the key {path} is open to every user of this host; run chmod o= on it."
        )
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UnprovenError(f"the key {path} is not {2 * KEY_BYTES} hexadecimal digits.")
    return key


def signature(payload: bytes, key: bytes) -> bytes:
    """HMAC-SHA256 of DSSE's pre-authentication encoding of ``payload``."""
    kind = PAYLOAD_TYPE.encode()
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    return hmac.digest(key, encoded, "sha256")


def key_id(key: bytes) -> str:
    """A name for a key that does not give it away."""
    return "hmac-sha256:" + hashlib.sha256(key).hexdigest()[:16]


def seal(statement: dict[str, Any], key: bytes) -> str:
    """The text of a proof file: ``statement``, signed."""
    import json

    payload = json.dumps(statement, sort_keys=True).encode()
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": _to_base64(payload),
        "signatures": [{"keyid": key_id(key), "sig": _to_base64(signature(payload, key))}],
    }
    return json.dumps(envelope, indent=1) + "\n"


def unseal(path: str, key: bytes) -> dict[str, Any]:
    """The statement of a proof file whose signature holds, else UnprovenError."""
    try:
        envelope = parse_json(_read_plain(path, PROOF_BYTES_MAX))
        payload = _from_base64(envelope["payload"])
        signatures = [_from_base64(one["sig"]) for one in envelope["signatures"]]
        known = envelope["payloadType"] == PAYLOAD_TYPE
    except FileNotFoundError:
        raise UnprovenError(
            f"there is no proof {path}; make one with 'trimton agent prove'."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnprovenError(f"{path} is no proof.") from error
    expected = signature(payload, key)
    if not known or not any(hmac.compare_digest(expected, one) for one in signatures):
        raise UnprovenError(f"{path} is not signed with the key {key_id(key)}.")
    # What is signed was made by this program; another version of it says so in the types.
    statement: dict[str, Any] = parse_json(payload)
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise UnprovenError(f"{path} is a proof of another kind: {statement['predicateType']}")
    return statement


def _to_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _from_base64(text: str) -> bytes:
    """ValueError for anything that _to_base64 would not have written."""
    data = binascii.a2b_base64(text)
    if _to_base64(data) != text:
        raise ValueError("is no base64")
    return data


class _Decoder:
    """What the scanner asks of a json.JSONDecoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")


def parse_json(data: bytes) -> Any:
    """What ``json.loads`` returns, by its scanner in C without its decoder in Python, for speed.

    Raises ValueError for what is no JSON, and RecursionError.
    """
    text = data.decode("utf-8")
    try:
        from _json import make_scanner
    except ImportError:  # an interpreter that has none
        import json

        return json.loads(text)
    blank = " \t\n\r"
    try:
        value, end = make_scanner(_Decoder)(text, len(text) - len(text.lstrip(blank)))  # type: ignore[arg-type]
    except StopIteration as error:
        raise ValueError("is no JSON") from error
    if text[end:].strip(blank):
        raise ValueError("is more than one JSON value")
    return value


# --- the check -----------------------------------------------------------------------------------


def served_versions(folder: str, config: dict[str, Any]) -> list[str]:
    """The versions in ``folder`` that Triton's version policy would serve, ascending.

    Without a policy it is the latest. Raises UnprovenError where there is none.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UnprovenError(f"{folder} cannot be read ({_reason(error)}).") from error
    present = sorted((name for name in names if name.isascii() and name.isdigit()), key=int)
    policy = config.get("version_policy") or {}
    if "all" in policy:
        chosen = present
    elif "specific" in policy:
        wanted = {int(version) for version in policy["specific"].get("versions", [])}
        chosen = [name for name in present if int(name) in wanted]
    else:
        chosen = present[-(int((policy.get("latest") or {}).get("num_versions") or 1)) :]
    if not chosen:
        raise UnprovenError(f"{folder} holds no version that the version policy serves.")
    return chosen


def proof_name(version: str, config_sha256: str = "") -> str:
    """The name of the proof of ``version``, in the folder that holds the version.

    With ``config_sha256`` (hex) that of the proof for this one ``config.pbtxt``: so the proofs for
    the next configuration can lie there before it comes into force.
    """
    return ".".join(filter(None, [version, config_sha256[:CONFIG_NAMED_BY], "proof.json"]))


def proof_path(model: str, folder: str, version: str) -> str:
    """The proof that counts for ``version`` under the configuration in ``model``."""
    config = file_digest(os.path.join(model, CONFIG_NAME))
    own = os.path.join(folder, proof_name(version, config))
    return own if os.path.lexists(own) else os.path.join(folder, proof_name(version))


def subjects(model: str, folder: str, version: str) -> dict[str, str]:
    """What a proof covers: SHA-256 of the configuration in ``model`` and of the version's files."""
    digests = version_digests(folder, version)
    return {CONFIG_NAME: file_digest(os.path.join(model, CONFIG_NAME)), **digests}


def check_version(
    model: str, folder: str, version: str, config: dict[str, Any], key: bytes, policy: str
) -> None:
    """UnprovenError unless the proof of one version holds here and now.

    ``model`` is the folder with the configuration, ``folder`` the one with the version.
    """
    proof = proof_path(model, folder, version)
    statement = unseal(proof, key)
    predicate = statement["predicate"]
    name = config.get("name") or os.path.basename(model)
    if (predicate["model"], predicate["version"]) != (name, int(version)):
        raise UnprovenError(
            f"{proof} is for version {predicate['version']} of {predicate['model']}, "
            f"not for version {version} of {name}."
        )
    _check_times(proof, predicate)
    if policy and predicate["policy"] != policy:
        raise UnprovenError(f"{proof} is of the policy {predicate['policy']}, not {policy}.")
    _check_processor(proof, predicate["processor"])
    if not same_config(predicate["config"], {**config, "name": predicate["config"]["name"]}):
        raise UnprovenError(f"the configuration to load is not the one that {proof} covers.")
    proven = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    present = subjects(model, folder, version)
    for file in sorted(proven.keys() | present.keys()):
        if file not in present:
            raise UnprovenError(f"{file} is proven, but missing.")
        if file not in proven:
            raise UnprovenError(f"{file} is not in the proof.")
        if proven[file] != present[file]:
            raise UnprovenError(f"{file} has changed since it was proven.")


def same_config(one: Any, other: Any) -> bool:
    """Whether two configurations, as JSON, are equal.

    Unset and default are the same; numbers may be strings, as protobuf writes 64-bit ones.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same_config(one.get(k), other.get(k)) for k in one.keys() | other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_config, one, other))
    if one in _UNSET or other in _UNSET:
        return one in _UNSET and other in _UNSET
    return str(one) == str(other)


def timestamp(seconds: float) -> str:
    """A time of day in UTC as proofs carry it: of one length, so that text compares as time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def _check_times(proof: str, predicate: dict[str, Any]) -> None:
    if timestamp(time.time()) >= predicate["expires"]:
        raise UnprovenError(f"{proof} expired on {predicate['expires']}; prove the model again.")
    if timestamp(time.time() + CLOCK_SKEW_S) < predicate["created"]:
        raise UnprovenError(f"{proof} is of {predicate['created']}; set this host's clock.")


def _check_processor(proof: str, processor: dict[str, Any]) -> None:
    machine = os.uname().machine
    if processor["architecture"] != machine:
        raise UnprovenError(f"{proof} is for {processor['architecture']}; this host is {machine}.")
    missing = sorted(set(processor["instruction_sets"]) - _instruction_sets())
    if missing:
        raise UnprovenError(
            f"{proof} is for processors with {', '.join(missing)}; this host has none."
        )


def _instruction_sets() -> set[str]:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return set(value.split())
    return set()


def check_model(
    model: str, config: dict[str, Any], key_file: str, policy: str = "", redirect: str = ""
) -> tuple[str, str]:
    """The word and the text of the answer for ``model``; UnprovenError for a veto."""
    folder = _redirected(model, redirect) if redirect else model
    key = read_key(key_file)
    versions = served_versions(folder, config)
    for version in versions:
        check_version(model, folder, version, config, key, policy)
    if redirect:
        return "redirect", folder
    return "allow", f"proven: version {', '.join(versions)}"


def _redirected(model: str, redirect: str) -> str:
    if not redirect.isprintable():
        raise UnprovenError(f"redirect {redirect!r} is no name of a folder.")
    if os.path.isabs(redirect):
        return os.path.normpath(redirect)
    if ".." in redirect.split("/"):
        raise UnprovenError(f"redirect {redirect!r} leads out of the model; give an absolute path.")
    return os.path.normpath(os.path.join(model, redirect))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def main(arguments: list[str]) -> None:
    """Answer on standard output."""
    location, key_file, policy, redirect = arguments
    try:
        data = sys.stdin.buffer.read(CONFIG_BYTES_MAX + 1)
        if len(data) > CONFIG_BYTES_MAX:
            raise UnprovenError(f"the configuration is over {CONFIG_BYTES_MAX} bytes.")
        model = os.path.abspath(location)
        word, text = check_model(model, parse_json(data), key_file, policy, redirect)
    except UnprovenError as refused:
        word, text = "veto", str(refused)
    except OSError as error:
        word, text = "veto", f"{error.filename} cannot be read ({_reason(error)})."
    # One line whatever a file's name is.
    line = text.encode("utf-8", "backslashreplace").decode()
    sys.stdout.write(word + "\t" + "".join(c if c.isprintable() else "?" for c in line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
