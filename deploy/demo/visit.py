"""`make visit`: one whole visit without a person, on real parts, with a timeline.

Rule: a step counts only if it was seen from outside the station, and the voices only if they are in the
recordings of the other side. The first step that does not happen ends the visit with exit code 1.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deploy.demo.hearing import wait_heard
from deploy.demo.home import CODE, Home
from deploy.demo.program import ProgramError
from deploy.demo.sound import VirtualCard
from deploy.demo.speech import RESIDENT, VISITOR, spoken

RELEASE_SECONDS = 2.0
STRIKE_TOLERANCE_SECONDS = 0.15
SPEECH_SECONDS = 15.0
REPORT = Path("build/visit.json")


class Timeline:
    """Prints what has happened, in milliseconds since the press."""

    def __init__(self) -> None:
        self.press = time.monotonic()
        self.rows: list[dict[str, Any]] = []

    def tell(self, what: str, at: float | None = None) -> None:
        """One line; `at` is monotonic seconds, now if not given."""
        passed = (time.monotonic() if at is None else at) - self.press
        print(f"{passed * 1000:9.1f} ms  {what}", flush=True)
        self.rows.append(
            {"name": what, "value": round(passed * 1000, 1), "unit": "ms", "limit": None, "holds": True}
        )


class Missing(Exception):
    """A step of the visit did not happen."""


def visit(folder: Path, times: Timeline) -> None:
    """Play the visit and tell its timeline; blocks for about 20 s.

    Raises:
        Missing, ProgramError, TimeoutError: a step did not happen.
    """
    visitor, resident = spoken(VISITOR, folder / "speech"), spoken(RESIDENT, folder / "speech")
    card = VirtualCard(folder / "card")
    with Home(
        folder, answer="manual", card=card, speaks=resident, records=True, release_seconds=RELEASE_SECONDS
    ) as home:
        station, phone = home.station, home.phone
        account = home.status()["accounts"][0]
        if account["state"] != "registered" or not home.site.registered("door"):
            raise Missing(f"the door is not registered: {account['reason']}")
        times.tell(f"registered at our SIP server as {account['uri']}")
        with card.record_loudspeaker(folder / "loudspeaker.wav") as loudspeaker:
            times.press = time.monotonic()
            station.press()
            times.tell("the bell is pressed", times.press)
            dialled = station.wait_action("Dial")
            times.tell(f"the station calls {dialled['to']}", dialled["at"])
            times.tell("INVITE has reached the phone", phone.wait_ringing().at)
            times.tell("the phone rings (180)", station.wait_event("CallRang")["at"])
            phone.answer()
            times.tell("answered", station.wait_event("CallAnswered")["at"])
            phone.wait_established()
            said = wait_heard(resident, loudspeaker, SPEECH_SECONDS)
            times.tell(f"the resident was heard at the door: {said.score:.2f}, {said.level_dbfs:.0f} dBFS")
            card.say(visitor)
            told = wait_heard(visitor, phone.recording(), SPEECH_SECONDS)
            times.tell(f"the visitor was heard at the phone: {told.score:.2f}, {told.level_dbfs:.0f} dBFS")
            call = home.status()["call"]
            times.tell(f"{call['codec']}, {call['rx']['packets']} packets in, {call['tx']['packets']} out")
            phone.press_digits(CODE)
            opened = station.wait_event("StrikeMoved", released=True)
            times.tell("the digit releases the strike", opened["at"])
            locked = station.wait_event("StrikeMoved", RELEASE_SECONDS + 2.0, released=False)
            held = locked["at"] - opened["at"]
            times.tell(f"the strike is locked again after {held:.3f} s", locked["at"])
            if abs(held - RELEASE_SECONDS) > STRIKE_TOLERANCE_SECONDS:
                raise Missing(f"the strike was released for {held:.3f} s, not for {RELEASE_SECONDS:g} s")
            phone.hang_up()
            times.tell("the phone has hung up", station.wait_event("CallEnded")["at"])
            times.tell("idle again", station.wait_state("Idle")["at"])
        status = home.status()
        if status["state"] != "idle" or status["panel"]["doors"]["front"]["released"] or status["faults"]:
            raise Missing(f"not as before: {status['state']}, faults {status['faults']}")
        code = station.stop()
        if code != 0 or home.site.registered("door"):
            raise Missing(f"the station did not end cleanly: exit code {code}")
        times.tell("stopped and un-registered")


def main() -> int:
    """Run in a temporary folder; 0 if every step has happened."""
    times = Timeline()
    with tempfile.TemporaryDirectory(prefix="visit-") as folder:
        try:
            visit(Path(folder), times)
        except (Missing, ProgramError, TimeoutError) as error:
            print(f"visit: {error}", file=sys.stderr)
            times.rows.append({"name": str(error), "value": None, "unit": "", "limit": None, "holds": False})
            return 1
        finally:
            REPORT.parent.mkdir(exist_ok=True)
            REPORT.write_text(json.dumps(times.rows, indent=1, ensure_ascii=False) + "\n")
    print("the visit went well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
