"""What is installed: the unit and the files around it, staged into a folder and read from there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest

from hardware.board import load_board
from intercom import __version__
from intercom.cli.main import WRONG, main
from intercom.settings.loading import WrongSettings, load
from intercom.site.places import FOLDER
from intercom.site.running import START_SECONDS
from intercom.system.places import GUARDIAN

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/intercom.service"
GUARDIAN_UNIT = ROOT / "deploy/systemd/intercom-guardian.service"
SITE_UNIT = ROOT / "deploy/systemd/intercom-site.service"
EXAMPLE = ROOT / "deploy/settings/intercom.toml"
EXPOSURE_TENTHS = 15
PROMISED_STOP_SECONDS = 3
SECRET = "door.secret"


def directives(file: Path) -> dict[str, list[str]]:
    """The lines of a unit, by name; sections are not told apart, since no name stands in two."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def install(
    stage: Path, pjsua2: Path, program: Path | None = None, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run `deploy/install` into a folder, without what the program needs from others."""
    environment = {
        **os.environ,
        "DESTDIR": str(stage),
        "PYTHON": sys.executable,
        "PJSUA2_WHEEL": str(pjsua2),
        "PIP_NO_DEPS": "1",
    }
    if program is not None:
        environment["INTERCOM_WHEEL"] = str(program)
    command: list[str | Path] = [ROOT / "deploy/install", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def write_wheel(folder: Path, name: str, version: str) -> Path:
    """A stand-in: a wheel with one empty module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stand-ins for pjsua2 and for the program."""
    folder = tmp_path_factory.mktemp("wheels")
    return write_wheel(folder, "pjsua2", "2.17"), write_wheel(folder, "intercom", __version__)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, wheels: tuple[Path, Path]) -> Path:
    """The program itself, built from this source; pip fetches setuptools for it."""
    stage = tmp_path_factory.mktemp("stage")
    done = install(stage, wheels[0])
    assert done.returncode == 0, done.stderr
    return stage


# The unit


@pytest.mark.parametrize("file", [UNIT, GUARDIAN_UNIT, SITE_UNIT], ids=lambda file: file.stem)
def test_verifies(stage: Path, tmp_path: Path, file: Path) -> None:
    """Seen from the staging folder, since nothing is installed here."""
    unit = tmp_path / file.name
    unit.write_text(file.read_text().replace("/opt/intercom", f"{stage}/opt/intercom"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if file.name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("file", [UNIT, GUARDIAN_UNIT, SITE_UNIT], ids=lambda file: file.stem)
def test_exposure(file: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["ExecStart", "ExecStopPost"])
def test_the_guardian_is_installed(stage: Path, tmp_path: Path, name: str) -> None:
    """As the unit runs it, but for the folder and for settings that are not there."""
    command = directives(GUARDIAN_UNIT)[name][0].split()
    assert [part for part in command if part.endswith(".toml")] == ["/etc/intercom/intercom.toml"]
    command[0] = str(stage / command[0].lstrip("/"))
    command = [part.replace("/etc", str(tmp_path)) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == WRONG
    assert done.stderr.startswith("guardian: ")


def test_the_guardian_knows_no_network_and_locks_at_its_end() -> None:
    unit, service = directives(GUARDIAN_UNIT), directives(UNIT)
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"], "it never gives up"
    assert float(unit["RestartSec"][0]) >= 1
    assert unit["RestartPreventExitStatus"] == [str(WRONG)]
    assert (unit["PrivateNetwork"], unit["RestrictAddressFamilies"]) == (["yes"], ["AF_UNIX"])
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["ExecStart"][0].endswith(f" {GUARDIAN}")
    assert f"/run/{unit['RuntimeDirectory'][0]}" == str(GUARDIAN.parent)
    assert unit["Group"][0] in service["SupplementaryGroups"][0].split()
    assert unit["Group"] != service["Group"], "operators are in the service's group"
    assert GUARDIAN_UNIT.name in service["Wants"]


def test_commands_are_installed(stage: Path) -> None:
    program, command = directives(UNIT)["ExecStart"][0].split()
    script = stage / program.lstrip("/")
    assert os.access(script, os.X_OK)
    interpreter = script.read_text().splitlines()[0].removeprefix("#!")
    assert interpreter.startswith("/opt/intercom/"), "not the staging folder"
    assert os.access(stage / interpreter.lstrip("/"), os.X_OK)
    assert command in main.list_commands(click.Context(main))


def test_restarts() -> None:
    unit = directives(UNIT)
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(WRONG)]
    assert unit["StartLimitIntervalSec"] == ["0"], "it never gives up"
    assert float(unit["RestartSec"][0]) >= 1
    assert float(unit["WatchdogSec"][0]) <= 20
    assert float(unit["TimeoutStopSec"][0]) > PROMISED_STOP_SECONDS


def test_the_site_restarts_as_an_ordinary_user() -> None:
    unit = directives(SITE_UNIT)
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(WRONG)]
    assert unit["StartLimitIntervalSec"] == ["0"], "it never gives up"
    assert float(unit["TimeoutStartSec"][0]) > 2 * START_SECONDS, "the settings, and the last good ones"
    assert unit["CapabilityBoundingSet"] == [""]
    (made,) = [
        line.split()
        for line in SITE_UNIT.with_suffix(".sysusers").read_text().splitlines()
        if line.startswith("u ")
    ]
    assert unit["User"] == [made[1]]
    assert unit["StateDirectory"] == [FOLDER.name]
    assert [command.split()[1:] for command in unit["ExecStart"] + unit["ExecReload"]] == [
        ["site"],
        ["site", "apply"],
    ]


def test_groups_exist() -> None:
    """A group that does not exist would keep the unit from starting."""
    lines = [line.split() for line in (UNIT.parent / "intercom.sysusers").read_text().splitlines()]
    made = {words[1] for words in lines if words and words[0] in {"g", "u"}}
    for unit in (UNIT, GUARDIAN_UNIT):
        wanted = directives(unit)
        assert {*wanted["SupplementaryGroups"][0].split(), *wanted["User"], *wanted["Group"]} <= made


def test_no_secret_in_the_unit() -> None:
    """`systemctl show` tells everybody what stands in SetCredential= and Environment=."""
    unit = directives(UNIT)
    assert unit["SetCredential"] == [f"{SECRET}:\\n"]
    assert unit["Environment"] == ["PYTHONFAULTHANDLER=1"]


# The settings


def test_example_lacks_the_password_alone(tmp_path: Path) -> None:
    example = Path(shutil.copy(EXAMPLE, tmp_path))
    with pytest.raises(WrongSettings) as wrong:
        load(example)
    assert [mistake.key for mistake in wrong.value.mistakes] == ["account[1].password_file"]
    (tmp_path / SECRET).touch(0o600)
    (tmp_path / SECRET).write_text("a password\n")
    settings = load(example)
    assert directives(UNIT)["LoadCredential"] == [
        f"{settings.account[0].password_file}:/etc/intercom/{SECRET}"
    ]


def test_example_fits_the_board(tmp_path: Path) -> None:
    (tmp_path / SECRET).touch(0o600)
    (tmp_path / SECRET).write_text("a password\n")
    settings = load(Path(shutil.copy(EXAMPLE, tmp_path)))
    terminals = {(terminal.kind, terminal.pin) for terminal in load_board(settings.station.board).terminals}
    for kind, parts in (("button", settings.button), ("lamp", settings.lamp), ("door", settings.door)):
        for part in parts:
            assert (kind, part.pin) in terminals


# The installer


def test_layout(stage: Path) -> None:
    release = f"opt/intercom/{__version__}-1"
    modes = {
        str(path.relative_to(stage)): f"{stat.S_IMODE(path.lstat().st_mode):o}"
        for path in stage.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not path.is_relative_to(stage / release)
        and "/doc/" not in str(path)
    }
    assert modes == {
        "etc/intercom/door.secret": "600",
        "etc/intercom/intercom.toml": "640",
        "usr/local/lib/systemd/system/intercom.service": "644",
        "usr/local/lib/systemd/system/intercom-guardian.service": "644",
        "usr/local/lib/sysusers.d/intercom.conf": "644",
        "usr/local/lib/udev/rules.d/60-intercom.rules": "644",
    }
    assert stat.S_IMODE((stage / "etc/intercom").stat().st_mode) == 0o751
    assert (stage / "opt/intercom/current").readlink() == Path(f"{__version__}-1")
    assert (stage / "usr/local/bin/intercom").readlink() == Path("/opt/intercom/current/bin/intercom")
    boards = list((stage / release).glob("lib/python*/site-packages/hardware/boards/*.toml"))
    assert {board.name for board in boards} == {board.name for board in ROOT.glob("hardware/boards/*.toml")}
    assert not list((stage / release).glob("**/*.egg-link"))
    assert str(stage) not in (stage / release / "bin/intercom").read_text()


def test_the_program_brings_the_configuration_of_the_sip_server(stage: Path) -> None:
    parts = (stage / "opt/intercom/current/share/intercom/site").iterdir()
    assert {path.name for path in parts} == {path.name for path in (ROOT / "deploy/site").iterdir()}


def site_files(stage: Path) -> dict[str, str]:
    """What belongs to the SIP server outside the program, with its mode."""
    return {
        str(path.relative_to(stage)): f"{stat.S_IMODE(path.stat().st_mode):o}"
        for folder in ("etc", "var", "usr/local/lib")
        for path in (stage / folder).rglob("*site*")
    }


def test_again(tmp_path: Path, wheels: tuple[Path, Path]) -> None:
    """Settings and password stay; the version before stays for a way back, older ones do not.

    The SIP server comes when it is wanted, and stays.
    """
    sites = []
    for number, options in enumerate(((), ("--site",), ())):
        done = install(tmp_path, *wheels, *options)
        assert done.returncode == 0, done.stderr
        sites.append(site_files(tmp_path))
        if number == 0:
            (tmp_path / "etc/intercom/intercom.toml").write_text("mine")
            (tmp_path / "etc/intercom/door.secret").write_text("mine")
    wanted = {
        "etc/intercom/site.toml": "640",
        "usr/local/lib/systemd/system/intercom-site.service": "644",
        "usr/local/lib/sysusers.d/intercom-site.conf": "644",
        "var/lib/intercom-site": "700",
    }
    assert sites == [{}, wanted, wanted]
    opt = tmp_path / "opt/intercom"
    assert (tmp_path / "etc/intercom/intercom.toml").read_text() == "mine"
    assert (tmp_path / "etc/intercom/door.secret").read_text() == "mine"
    assert sorted(path.name for path in opt.iterdir()) == sorted(
        ["current", "previous", f"{__version__}-2", f"{__version__}-3"]
    )
    assert (opt / "current").readlink() == Path(f"{__version__}-3")
    assert (opt / "previous").readlink() == Path(f"{__version__}-2")


def test_names_the_step_that_failed(stage: Path, tmp_path: Path) -> None:
    """And leaves what was installed before as it was."""
    before = sorted(path.name for path in (stage / "opt/intercom").iterdir())
    broken = tmp_path / "pjsua2-2.17-py3-none-any.whl"
    write_wheel(tmp_path, "other", "1.0").rename(broken)
    done = install(stage, broken)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "install: failed at: program"
    done = install(stage, tmp_path / "missing.whl")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == f"install: failed at: pjsua2: no such file: {tmp_path}/missing.whl"
    assert sorted(path.name for path in (stage / "opt/intercom").iterdir()) == before
