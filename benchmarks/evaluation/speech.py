"""Speech at known times in noise, for silero-vad: streams of 16 kHz in frames of 32 ms.

The recordings are the voice prompts of Asterisk in English, French and Italian (three speakers;
calibration and test share no recording), recorded at 8 kHz. They are placed at random in pink
noise with hum, at 0 to 20 dB. A frame is speech where the recording alone is within 30 dB of its
loudest frame.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly
from scipy.stats import rankdata

from evaluation.packages import cached, debian_files

Array = npt.NDArray[Any]

RATE = 16_000
FRAME, CONTEXT = 512, 64
_STREAMS = {"calibration": 4, "test": 32}
_FRAMES = 625
_SPEAKERS = ("en", "fr", "it")
_PAUSE_SECONDS = (0.5, 3.0)
_LONGEST_SECONDS = 4
_SPEECH_DB = -30


def speech() -> dict[str, Array]:
    """``calibration`` and ``test``: float32 [streams, 20 s], ``test_labels`` [streams, frames]."""
    return cached("speech-2", _place)


def frames(streams: Array) -> Array:
    """float32 [frames, streams, 576]: each frame behind the last 64 samples before it."""
    padded = np.pad(streams, ((0, 0), (CONTEXT, 0)))
    count = streams.shape[1] // FRAME
    return np.stack([padded[:, i * FRAME : i * FRAME + FRAME + CONTEXT] for i in range(count)])


def area_under_curve(scores: Array, labels: Array) -> float:
    """The chance that a frame of speech scores above one without (Mann and Whitney, 1947)."""
    ranks = rankdata(scores.ravel())
    is_speech = labels.ravel().astype(bool)
    positive, negative = int(is_speech.sum()), int((~is_speech).sum())
    above = ranks[is_speech].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def _place() -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    recordings = [path for speaker in _SPEAKERS for path in _recordings(speaker)]
    rng.shuffle(recordings)
    half = len(recordings) // 2
    arrays: dict[str, Array] = {}
    for name, share in (("calibration", recordings[:half]), ("test", recordings[half:])):
        source = iter(share)
        pairs = [_stream(map(_read, source), rng) for _ in range(_STREAMS[name])]
        arrays[name] = np.stack([stream for stream, _ in pairs])
        arrays[f"{name}_labels"] = np.stack([labels for _, labels in pairs])
    return arrays


def _recordings(speaker: str) -> list[Path]:
    folder = debian_files(f"asterisk-core-sounds-{speaker}-wav") / "usr/share/asterisk/sounds"
    return [
        path
        for path in sorted(folder.rglob("*.wav"))
        if "silence" not in path.parts and _seconds(path) <= _LONGEST_SECONDS
    ]


def _seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        return float(file.getnframes() / file.getframerate())


def _read(path: Path) -> Array:
    """float32 at 16 kHz, the loudest sample 0.5."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
        doubled: Array = resample_poly(samples, RATE, file.getframerate())
    return doubled * (0.5 / max(float(np.abs(doubled).max()), 1.0))


def _stream(recordings: Iterator[Array], rng: np.random.Generator) -> tuple[Array, Array]:
    """Recordings one after the other until the next does not fit, and which frames are speech."""
    clean = np.zeros(_FRAMES * FRAME)
    loudness = np.zeros(_FRAMES, bool)
    start = int(rng.uniform(*_PAUSE_SECONDS) * RATE)
    for recording in recordings:
        if start + len(recording) >= len(clean):
            break
        clean[start : start + len(recording)] = recording
        alone = np.zeros_like(clean)
        alone[start : start + len(recording)] = recording
        loudness |= _is_loud(alone)
        start += len(recording) + int(rng.uniform(*_PAUSE_SECONDS) * RATE)
    noise = _noise(len(clean), rng)
    speech_power = float((clean[np.repeat(loudness, FRAME)] ** 2).mean())
    noise *= np.sqrt(speech_power / 10 ** (rng.uniform(0, 20) / 10) / (noise**2).mean())
    return (clean + noise).clip(-1, 1).astype(np.float32), loudness


def _is_loud(recording: Array) -> Array:
    power = (recording.reshape(_FRAMES, FRAME) ** 2).mean(axis=1)
    loud: Array = power > power.max() * 10 ** (_SPEECH_DB / 10)
    return loud


def _noise(length: int, rng: np.random.Generator) -> Array:
    """Pink noise (power falls with frequency) and the mains at 50 Hz with two harmonics."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), length)
    time = np.arange(length) / RATE
    hum = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in (1, 2, 3))
    mixed: Array = pink / pink.std() + 0.3 * hum
    return mixed
