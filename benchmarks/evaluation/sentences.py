"""Two sets of labelled sentences for sentence embeddings.

``topics``: Debian's ``fortunes``, labelled by the file they stand in. ``packages``: the one-line
descriptions of Debian's packages, labelled by their section (as of the last ``apt-get update``
before the first call). A linear head on the embeddings tells the labels.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.packages import cached, debian_files
from evaluation.wordpiece import encode, vocabulary

Array = npt.NDArray[Any]

SETS = ("topics", "packages")
LENGTH = 32
TRAIN, TEST = 1024, 512
_TOPICS = ("art", "computers", "education", "food", "law", "people", "politics", "science")
_SECTIONS = ("database", "editors", "fonts", "games", "graphics", "mail", "science", "sound")
_LEAST_WORDS = 4
_RIDGE = 1e-2


def sentences() -> dict[str, Array]:
    """For each set: ``SET_ids`` and ``SET_mask`` int64 [1536, 32], ``SET_labels`` [1536].

    The first 1,024 train the head, the rest test it.
    """
    return cached("sentences-2", _read)


def head(embeddings: Array, labels: Array) -> Array:
    """Weights [width + 1, classes] of ridge regression onto the labels, a constant last."""
    features = _with_constant(embeddings)
    wanted = np.eye(int(labels.max()) + 1)[labels]
    gram = features.T @ features
    ridge = _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights: Array = np.linalg.solve(gram + ridge, features.T @ wanted)
    return weights


def told(embeddings: Array, weights: Array) -> Array:
    """The label that the head gives each embedding."""
    labels: Array = (_with_constant(embeddings) @ weights).argmax(axis=1)
    return labels


def _with_constant(embeddings: Array) -> Array:
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.hstack([unit, np.ones((len(unit), 1))])


def _read() -> Mapping[str, Array]:
    tokens = vocabulary()
    arrays: dict[str, Array] = {}
    for name, pairs in (("topics", _fortunes()), ("packages", _descriptions())):
        texts, labels = zip(*sorted(set(pairs)), strict=True)
        rng = np.random.default_rng(0)
        chosen = _balanced(np.array(labels), rng)
        ids, mask = encode([texts[i] for i in chosen], LENGTH, tokens)
        arrays |= {f"{name}_ids": ids, f"{name}_mask": mask}
        arrays[f"{name}_labels"] = np.array(labels)[chosen]
    return arrays


def _balanced(labels: Array, rng: np.random.Generator) -> Array:
    """Indices in a random order, as many of each label as the set has of all of them."""
    classes = int(labels.max()) + 1
    most = -(-(TRAIN + TEST) // classes)
    picked = [rng.permutation(np.flatnonzero(labels == c))[:most] for c in range(classes)]
    return rng.permutation(np.concatenate(picked))[: TRAIN + TEST]


def _fortunes() -> Iterator[tuple[str, int]]:
    folder = debian_files("fortunes") / "usr/share/games/fortunes"
    for label, topic in enumerate(_TOPICS):
        text = (folder / topic).read_text(encoding="utf-8", errors="replace")
        for entry in text.split("\n%\n"):
            sentence = re.sub(r"\s+", " ", entry.split("\t\t--")[0]).strip()
            if len(sentence.split()) >= _LEAST_WORDS:
                yield sentence, label


def _descriptions() -> Iterator[tuple[str, int]]:
    done = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True)
    for stanza in done.stdout.split("\n\n"):
        section = re.search(r"^Section: (\S+)$", stanza, re.MULTILINE)
        description = re.search(r"^Description: (.+)$", stanza, re.MULTILINE)
        if section is None or description is None or section[1] not in _SECTIONS:
            continue
        if len(description[1].split()) >= _LEAST_WORDS:
            yield description[1], _SECTIONS.index(section[1])
