"""The door's loudspeaker and microphone at pjsua2's bridge: opened when a tone or a call needs them.

Rule: everything here runs on the SIP thread; without a card there is a fault, and calls go on.
"""

import functools
import os
from collections.abc import Callable, Iterable

import pjsua2 as pj

from intercom.core.events import HealthChanged
from intercom.core.guide import Tone
from intercom.sip.callbacks import words
from intercom.sip.tones import CADENCES, PROMPT, Cadence
from intercom.sip.worker import Later

BRIDGE_HERTZ = 16000


class Sound:
    """The sound device, the tones of the door, and the calls that are joined to it."""

    def __init__(
        self,
        devices: pj.AudDevManager,
        device: Callable[[], str] | None,
        used: Callable[[], bool],
        tell: Callable[[HealthChanged], None],
        later: Later,
    ) -> None:
        """Prepare; the device stays closed.

        Args:
            devices: of the library, which is started.
            device: finds the device's ALSA PCM name; None for a station without sound.
            used: tells whether a call needs the device now.
            tell: takes faults of the device.
            later: runs a job on the SIP thread after some seconds.
        """
        self._devices = devices
        self._device = device
        self._used = used
        self._tell = tell
        self._later = later
        self._is_open = False
        self._fault: str | None = None
        self._tone = Tone.SILENCE
        self._tones = pj.ToneGenerator()
        self._tones.createToneGenerator(BRIDGE_HERTZ)
        self._warning: pj.ToneGenerator | None = None
        self._prompt = pj.ToneGenerator()
        self._prompt.createToneGenerator(BRIDGE_HERTZ)

    def play(self, tone: Tone) -> None:
        """Play a tone at the door in place of the one before."""
        self._tone = tone
        self._tones.stop()
        cadence = CADENCES.get(tone)
        if cadence is None:
            self.rest()
            return
        self._open()
        self._tones.startTransmit(self._speaker())
        self._tones.play(_descriptions(cadence), cadence.repeats)
        if not cadence.repeats:
            self._later(cadence.seconds, functools.partial(self._played, tone))

    def join(self, media: pj.AudioMedia, *, speaker: bool, microphone: bool, prompt: bool) -> None:
        """Join the sound of a call to the door.

        Args:
            media: of the call.
            speaker: whether the far end is heard at the door.
            microphone: whether the door is heard at the far end.
            prompt: whether the far end hears the tone that asks for a key.
        """
        if speaker or microphone or prompt:
            self._open()
        if prompt and not self._prompt.isBusy():
            self._prompt.play(_descriptions(PROMPT), PROMPT.repeats)
        _switch(self._devices.getCaptureDevMedia(), media, on=microphone)
        _switch(self._prompt, media, on=prompt)
        _switch(media, self._speaker(), on=speaker)

    def warn(self, calls: Iterable[pj.AudioMedia]) -> None:
        """Play the warning tone once, at the door and into calls."""
        self._open()
        cadence = CADENCES[Tone.WARNING]
        tones = pj.ToneGenerator()
        tones.createToneGenerator(BRIDGE_HERTZ)
        for media in (self._speaker(), *calls):
            tones.startTransmit(media)
        tones.play(_descriptions(cadence), False)
        self._warning = tones  # it plays as long as it is kept

    def _speaker(self) -> pj.AudioMedia:
        return self._devices.getPlaybackDevMedia()

    def _played(self, tone: Tone) -> None:
        if self._tone is tone:
            self._tone = Tone.SILENCE
            self.rest()

    def _open(self) -> None:
        """Open the sound device, or a silent clock in its place so that calls and digits go on."""
        if self._is_open:
            return
        self._is_open = True
        fault = None
        try:
            if self._device is None:
                self._devices.setNullDev()
            else:
                name = self._device()
                os.environ["PJ_ALSA_DEVICE"] = name  # deploy/pjsua2/patches/alsa-one-device.patch
                self._devices.refreshDevs()
                index = self._devices.lookupDev("ALSA", name)
                self._devices.setCaptureDev(index)
                self._devices.setPlaybackDev(index)
        except (pj.Error, OSError, ValueError) as error:
            fault = words(error)
            self._devices.setNullDev()
        if fault != self._fault:
            self._fault = fault
            self._tell(HealthChanged("sound", fault))

    def rest(self) -> None:
        """Close the sound device once neither a tone nor a call needs it."""
        if self._is_open and self._tone is Tone.SILENCE and not self._used():
            self._is_open = False
            self._devices.setNoDev()


def _descriptions(cadence: Cadence) -> pj.ToneDescVector:
    """A cadence as pjsua2 wants it."""
    beeps = pj.ToneDescVector()
    for beep in cadence.beeps:
        element = pj.ToneDesc()
        element.freq1, element.on_msec, element.off_msec = beep.hertz, beep.on, beep.off
        beeps.append(element)
    return beeps


def _switch(source: pj.AudioMedia, sink: pj.AudioMedia, *, on: bool) -> None:
    if on:
        source.startTransmit(sink)
    else:
        source.stopTransmit(sink)
