"""A sound card that exists only in software: a loudspeaker to listen at and a microphone to speak into.

A private PulseAudio, without D-Bus and for any user, behind an ALSA device called `door`. Two null sinks
are the loudspeaker and the air before the microphone.

Rule: nothing outside its folder is touched, so that several cards run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.program import Program, ProgramError

RATE = 48_000

# Without norewinds a null sink loses time whenever a player with a long buffer writes ahead of a reader
# with a short one: playback then takes 120 % of its time and more, and the recording has holes.
_PULSE = """\
load-module module-native-protocol-unix socket={socket} auth-anonymous=1
load-module module-null-sink sink_name=loudspeaker rate={rate} channels=1 format=s16le norewinds=1
load-module module-null-sink sink_name=microphone rate={rate} channels=1 format=s16le norewinds=1
set-default-sink loudspeaker
set-default-source microphone.monitor
"""

# On top of the system's own file: without that PortAudio aborts the process.
_ALSA = """\
</usr/share/alsa/alsa.conf>
pcm.door {{
    type asym
    playback.pcm {{ type pulse server "unix:{socket}" device loudspeaker }}
    capture.pcm {{ type pulse server "unix:{socket}" device microphone.monitor }}
    hint {{ show on description "The door's loudspeaker and microphone" }}
}}
ctl.door {{ type pulse server "unix:{socket}" sink loudspeaker source microphone.monitor }}
"""


class VirtualCard:
    """A loudspeaker and a microphone, mono, 48 kHz, paced like real ones.

    Args:
        folder: for its socket, configuration and logs; one per card, created when missing. Its path must
            be short enough for a Unix socket (90 characters).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._socket = self.folder / "pulse.sock"
        self._programs: list[Program] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to find the ALSA device `door`, and only that."""
        return {
            "ALSA_CONFIG_PATH": str(self.folder / "asound.conf"),
            "PULSE_SERVER": f"unix:{self._socket}",
            **self._home,
        }

    @property
    def _home(self) -> dict[str, str]:
        """Where PulseAudio keeps what it keeps, at both ends; else it leaves a folder in /tmp each time."""
        return {"PULSE_RUNTIME_PATH": str(self.folder), "PULSE_STATE_PATH": str(self.folder)}

    @property
    def server(self) -> Program:
        """The sound server's process, whose log tells who opens and closes the card.

        Raises:
            ProgramError: the card does not run.
        """
        if not self._programs:
            raise ProgramError(f"the sound card in {self.folder} is not started")
        return self._programs[0]

    def start(self) -> None:
        """Start the card; blocks until it can be opened, at most 10 s.

        Raises:
            ProgramError: PulseAudio does not start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "asound.conf").write_text(_ALSA.format(socket=self._socket))
        script = self.folder / "door.pa"
        script.write_text(_PULSE.format(socket=self._socket, rate=RATE))
        options = ["--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-target=stderr", "-v"]
        server = Program(
            ["pulseaudio", "-n", "-F", script, *options], self.folder / "pulse.log", self._home, self.folder
        )
        self._programs.append(server)
        try:
            server.wait_for(r"Daemon startup complete", 10.0)
        except ProgramError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the card and everything that plays or records on it here. Harmless when it does not run."""
        while self._programs:
            self._programs.pop().stop()

    def say(self, speech: Path) -> Program:
        """Play a WAV file at the microphone; returns at once. `wait()` of the result blocks until its end."""
        player = Program(
            ["paplay", "--device=microphone", "--latency-msec=40", speech],
            self.folder / "say.log",
            self.environment,
        )
        self._programs.append(player)
        return player

    @contextmanager
    def record_loudspeaker(self, path: Path) -> Iterator[Path]:
        """Within the context, write what the loudspeaker plays to a WAV file; it is complete afterwards.

        The recording really runs when the context is entered, so a delay found in it counts from there.

        Raises:
            ProgramError: the card is gone.
        """
        server = self.server
        before = server.mark
        recorder = Program(
            [
                "parec",
                "--device=loudspeaker.monitor",
                "--latency-msec=20",
                "--stream-name=listener",
                f"--rate={RATE}",
                "--channels=1",
                "--format=s16le",
                "--file-format=wav",
                path,
            ],
            self.folder / "listen.log",
            self.environment,
        )
        self._programs.append(recorder)
        server.wait_for('Created output .* "listener" on loudspeaker', 5.0, before)
        try:
            yield path
        finally:
            recorder.stop()
            self._programs.remove(recorder)
