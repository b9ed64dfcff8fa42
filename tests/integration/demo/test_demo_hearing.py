"""The evidence for `hearing.CLEAR`: how the right voice scores, and how everything else does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.demo.hearing import CLEAR, heard
from deploy.demo.speech import RESIDENT, VISITOR, Sentence, spoken
from tests.integration.conftest import Voices


def sox(*arguments: object) -> None:
    subprocess.run(["sox", "-V1", "-R", *map(str, arguments)], check=True)


@pytest.mark.parametrize(
    ("options", "effects", "floor"),
    [
        pytest.param([], [], 0.99, id="the same"),
        pytest.param(["-r", 8000, "-e", "a-law", "-b", 8], [], 0.9, id="A-law at 8 kHz"),
        pytest.param(["-r", 8000, "-t", "gsm"], [], 0.85, id="GSM"),
        pytest.param(["-r", 44100, "-c", 2], [], 0.99, id="44.1 kHz stereo"),
        pytest.param([], ["gain", -20], 0.9, id="20 dB quieter"),
        pytest.param([], ["pad", 2], 0.99, id="two seconds late"),
        pytest.param([], ["speed", 0.99], 0.8, id="1 % slow"),
        pytest.param([], ["highpass", 500, "lowpass", 2500], 0.75, id="a narrow loudspeaker"),
        pytest.param([], ["reverb", 60], 0.65, id="echo of a stairwell"),
        pytest.param([], ["trim", 1.0], 0.7, id="the first word missing"),
    ],
)
def test_the_right_voice(
    tmp_path: Path, voices: Voices, options: list[object], effects: list[object], floor: float
) -> None:
    coded, recording = tmp_path / "coded", tmp_path / "recording.wav"
    form = [] if "-t" in options else ["-t", "wav"]
    sox("-D", voices.visitor, *form, *options, coded, *effects)
    sox(*(["-t", "gsm"] if "-t" in options else ["-t", "wav"]), coded, "-e", "signed", "-b", 16, recording)
    assert heard(voices.visitor, recording).score > floor > CLEAR


@pytest.mark.parametrize(("noise_db", "floor"), [(-20, 0.95), (-10, 0.9), (0, 0.7)])
def test_the_right_voice_in_the_noise_of_a_street(
    tmp_path: Path, voices: Voices, noise_db: int, floor: float
) -> None:
    noise, recording = tmp_path / "noise.wav", tmp_path / "recording.wav"
    speech_rms_db = heard(voices.visitor, voices.visitor).level_dbfs
    # Brown noise, as traffic has; sox makes it with an RMS of about -11.6 dBFS.
    sox(
        "-n", "-r", 16000, "-b", 16, noise, "synth", 10, "brownnoise", "gain", speech_rms_db + 11.6 + noise_db
    )
    sox("-m", "-v", 1, voices.visitor, "-v", 1, noise, recording)
    assert heard(voices.visitor, recording).score > floor > CLEAR
    assert not heard(voices.resident, recording).clearly


@pytest.mark.parametrize(
    "sound",
    [
        "trim 0 12",
        "synth 12 whitenoise gain -20",
        "synth 12 pinknoise tremolo 4 100 gain -15",
        "synth 12 sine 440 gain -10",
        "synth 12 square 3 gain -10",
        "synth 12 sine 425 tremolo 0.2 100 gain -10",
    ],
)
def test_silence_noise_and_tones_are_no_voice(tmp_path: Path, voices: Voices, sound: str) -> None:
    recording = tmp_path / "recording.wav"
    sox("-n", "-r", 8000, "-b", 16, recording, *sound.split())
    for voice in (voices.visitor, voices.resident, voices.passer_by):
        assert heard(voice, recording).score < 0.3


def test_other_words_and_other_people_are_not_the_voice(tmp_path: Path, voices: Voices) -> None:
    everybody = [voices.visitor, voices.resident, voices.passer_by]
    for voice in everybody:
        for other in everybody:
            assert heard(voice, other).clearly == (voice == other)
            assert voice == other or heard(voice, other).score < 0.35
    same_words = spoken(Sentence(VISITOR.text, RESIDENT.voice), tmp_path)
    assert heard(voices.visitor, same_words).score < 0.5


def test_level_and_delay_are_measured(tmp_path: Path, voices: Voices) -> None:
    recording = tmp_path / "recording.wav"
    sox("-D", voices.visitor, recording, "gain", -6, "pad", 1.25)
    reference, found = heard(voices.visitor, voices.visitor), heard(voices.visitor, recording)
    assert found.delay_s == pytest.approx(1.25, abs=0.011)
    assert found.level_dbfs == pytest.approx(reference.level_dbfs - 6, abs=0.3)


def test_an_empty_recording_and_a_reference_without_voice(tmp_path: Path, voices: Voices) -> None:
    empty = tmp_path / "empty.wav"
    sox("-n", "-r", 8000, "-b", 16, empty, "trim", 0, 0)
    assert heard(voices.visitor, empty).score == 0
    with pytest.raises(ValueError, match="holds no voice"):
        heard(empty, voices.visitor)
    (tmp_path / "text").write_text("no sound")
    with pytest.raises(ValueError, match="not a WAV file"):
        heard(voices.visitor, tmp_path / "text")
