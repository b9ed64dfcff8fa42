"""`intercom site`: the SIP server of a house, and the commands that say who may use it.

A change is in the users' database when the command ends, and in the running server too. Without one it is
used at the next start.
"""

import json
import os
import pwd
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from intercom.cli.main import FAILED, NOT_RUNNING, WRONG, fail, json_option, print_json
from intercom.settings.loading import WrongSettings
from intercom.site import control, forms, places, server
from intercom.site.settings import Digest, SiteSettings, Transport, load
from intercom.site.users import Refused, Unwritable, Users

EVERY = "all"


@dataclass
class Place:
    """The site that a command is for."""

    folder: Path
    settings_file: Path
    _settings: SiteSettings | None = None

    @property
    def settings(self) -> SiteSettings:
        """Its settings, read once."""
        if self._settings is None:
            self._settings = load(self.settings_file)
        return self._settings

    def become_owner(self) -> None:
        """Go on as the user that the site's folder belongs to: no file in it may become root's."""
        if os.geteuid() != 0 or not self.folder.exists():
            return
        owner = self.folder.stat()
        if owner.st_uid != 0:
            try:
                os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
            except KeyError:
                os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)

    def users(self) -> Users:
        """Its users."""
        self.become_owner()
        return server.open_users(self.folder, self.settings)

    @contextmanager
    def change(self) -> Iterator[Users]:
        """Its users, to change something; the running server is told of what was changed."""
        users = self.users()
        try:
            yield users
        finally:
            if users.changed:
                self._reload()

    def _reload(self) -> None:
        try:
            for gateway in control.reload(self.folder):
                _warn(f"gateway {gateway} is down: its name does not resolve. The site tries every minute")
        except control.NotRunning:
            _warn("the site does not run: it will know when it starts")


def _warn(text: str) -> None:
    click.echo(f"intercom: {text}", err=True)


@contextmanager
def told() -> Iterator[None]:
    """Turns what can go wrong into lines for a person and an exit code."""
    from intercom.site.certificates import WrongCertificate
    from intercom.site.running import Failed

    try:
        yield
    except WrongSettings as wrong:
        for mistake in wrong.mistakes:
            click.echo(mistake, err=True)
        sys.exit(WRONG)
    except (Refused, WrongCertificate) as error:
        fail(str(error), WRONG)
    except control.NotRunning as error:
        fail(str(error), NOT_RUNNING)
    except (Unwritable, control.Denied, Failed) as error:
        fail(str(error), FAILED)
    except OSError as error:
        # What cannot be written to a pipe or a full disk Python would try again at its end, and say so.
        with suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)


class _Told(click.Group):
    """Every command of the group ends with a clear line."""

    def invoke(self, ctx: click.Context) -> Any:
        with told():
            return super().invoke(ctx)


_pass_place = click.make_pass_decorator(Place)


@click.group(cls=_Told, invoke_without_command=True)
@click.option(
    "--settings",
    envvar="INTERCOM_SITE",
    type=click.Path(path_type=Path),
    help=f"The settings file instead of {places.SETTINGS}.",
)
@click.option("--folder", type=click.Path(path_type=Path), help="The site's folder, if not the usual one.")
@click.option("--stateless", is_flag=True, help="Only pass everything on to another server, without users.")
@click.option("--to", "to", metavar="URI", help="With --stateless: that server, such as sip:pbx.example.")
@click.pass_context
def site(
    ctx: click.Context, settings: Path | None, folder: Path | None, stateless: bool, to: str | None
) -> None:
    """Run the SIP server of a house until SIGTERM or Ctrl-C, or see and change who may use it.

    SIGHUP makes it use changed settings; so does `intercom site apply`.
    """
    place = Place((folder or places.folder()).absolute(), settings or places.settings_file())
    if reason := places.wrong_folder(place.folder):
        raise Refused(reason)
    ctx.obj = place
    if ctx.invoked_subcommand is not None:
        return
    from intercom.cli.serve import log_to_stderr
    from intercom.site import running

    if stateless != (to is not None):
        raise click.UsageError("--stateless and --to belong together")
    log_to_stderr()
    place.become_owner()
    if to is None:
        sys.exit(running.serve(place.folder, place.settings_file))
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sys.exit(running.serve(place.folder / "relay", place.settings_file, _resolved(to)))


def _resolved(uri: str) -> str:
    """The URI with an address: what comes from that server is known by it."""
    try:
        forms.server(uri)
    except ValueError as error:
        raise Refused(str(error)) from None
    host = uri.removeprefix("sip:").partition(";")[0].partition(":")[0]
    try:
        address = str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
    except socket.gaierror as error:
        raise Refused(f"{host} is not known: {error.strerror}") from None
    return uri.replace(host, address, 1)


@site.command()
@_pass_place
def check(place: Place) -> None:
    """Tell whether the settings are right, and change nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        _check(place, place.folder if place.folder.exists() else Path(scratch))
    click.echo(f"the settings of {place.settings.site.domain} are right: {place.settings_file}")


def _check(place: Place, folder: Path) -> None:
    place.become_owner()
    shutil.rmtree(server.make(folder, place.settings, place.settings_file))


@site.command()
@_pass_place
def apply(place: Place) -> None:
    """Let the running site use changed settings. Wrong ones change nothing."""
    from intercom.site import running

    _check(place, place.folder)
    running.apply(place.folder)
    click.echo("the settings are in use", err=True)


# Users


def _prefixes(words: tuple[str, ...]) -> list[str]:
    return ["" if word == EVERY else word for word in words]


@site.command()
@click.argument("name")
@click.option("--display", default="", help="A name for people.")
@click.option("--digest", type=click.Choice(get_args(Digest)), help="Instead of that of the settings.")
@click.option("--transport", type=click.Choice(get_args(Transport)), help="How the phone connects.")
@click.option(
    "--may-call", multiple=True, metavar="PREFIX", help=f"Numbers beginning so; '{EVERY}' for every number."
)
@click.option("--station", is_flag=True, help="Also print the account for a door station's intercom.toml.")
@json_option
@_pass_place
def add(
    place: Place,
    name: str,
    display: str,
    digest: Digest | None,
    transport: Transport | None,
    may_call: tuple[str, ...],
    station: bool,
    as_json: bool,
) -> None:
    """Add a user, and print what to type into the phone. The password is shown this once."""
    from intercom.site import sheet

    settings = place.settings
    transport = transport or settings.listen.transports[0]
    if transport not in settings.listen.transports:
        raise Refused(f"the site does not listen for {transport}: add it to listen.transports")
    if station and transport not in ("udp", "tcp"):
        raise Refused("a door station connects over udp or tcp")
    password = sheet.new_password()
    with place.change() as users:
        facts = sheet.make(place.folder, settings, name, password, display, transport)
        with users.together():
            users.add(
                name, password, digest=digest or settings.site.digest, display=display, transport=transport
            )
            users.permit(name, _prefixes(may_call))
        _show_sheet(facts, as_json, station=station)


@site.command()
@click.argument("name")
@json_option
@_pass_place
def password(place: Place, name: str, as_json: bool) -> None:
    """Give a user a new password, and print what to type into the phone."""
    from intercom.site import sheet

    new = sheet.new_password()
    with place.change() as users:
        user = users.user(name)
        facts = sheet.make(place.folder, place.settings, name, new, user["display"], user["transport"])
        users.set_password(name, new)
        _show_sheet(facts, as_json)


def _show_sheet(sheet: Any, as_json: bool, *, station: bool = False) -> None:
    try:
        _print_sheet(sheet, as_json, station)
        sys.stdout.flush()
    except (OSError, AttributeError) as error:  # the latter without any standard output
        reason = getattr(error, "strerror", "there is no output")
        remedy = f"'intercom site password {sheet.user}' makes a new one"
        raise OSError(f"the password could not be shown ({reason}): {remedy}") from None


def _print_sheet(sheet: Any, as_json: bool, station: bool) -> None:
    facts, qr_text = sheet.facts(), sheet.qr_text()
    if as_json:
        more = {"qr": qr_text} if qr_text else {}
        if station:
            more["station"] = sheet.station()
        print_json({key.replace(" ", "_"): value for key, value in facts.items()} | more)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        click.echo(f"{key:<{width}}  {value}")
    if qr_text and not station:
        click.echo()
        sheet.show_qr(sys.stdout)
        click.echo(
            "Grandstream Wave reads the account from this code; into any other phone it is typed.", err=True
        )
    if station:
        click.echo(f"\n{sheet.station()}", nl=False)
        click.echo("The password goes into the file, as one line, and nowhere else.", err=True)


@site.command()
@click.argument("name")
@_pass_place
def remove(place: Place, name: str) -> None:
    """Remove a user."""
    with place.change() as users:
        users.remove(name)


@site.command("list")
@json_option
@_pass_place
def list_users(place: Place, as_json: bool) -> None:
    """List the users, and whether each is registered."""
    users = place.users().facts()["users"]
    with _without_server():
        for user in users:
            user["contacts"] = len(_contacts(place.folder, user["name"]))
    if as_json:
        print_json(users)
        return
    for user in users:
        state = "" if "contacts" not in user else "registered" if user["contacts"] else "not registered"
        click.echo(" ".join(filter(None, (user["name"], state, user["display"] and f'"{user["display"]}"'))))


@site.command()
@click.argument("name")
@json_option
@_pass_place
def show(place: Place, name: str, as_json: bool) -> None:
    """Show all about a user but the password."""
    users = place.users()
    everything = users.facts()
    user = users.user(name)
    user["groups"] = [group["name"] for group in everything["groups"] if name in group["members"]]
    user["numbers"] = [own["number"] for own in everything["numbers"] if own["target"] == name]
    user["redirect"] = next((each["uris"] for each in everything["redirects"] if each["name"] == name), [])
    with _without_server():
        user["contacts"] = _contacts(place.folder, name)
    if as_json:
        print_json(user)
        return
    user["may_call"] = [prefix or EVERY for prefix in user["may_call"]]
    for key, value in user.items():
        if key == "contacts":
            for contact in value:
                click.echo(
                    f"registered: {contact['uri']} for {contact['expires_s']} s {contact['agent']}".rstrip()
                )
        elif value or key == "seconds":
            text = " ".join(value) if isinstance(value, list) else value
            click.echo(f"{key.replace('_', ' ')}: {text}")
    if user.get("contacts") == []:
        click.echo("not registered")


@contextmanager
def _without_server() -> Iterator[None]:
    """What only the running server knows is left out when none runs."""
    try:
        yield
    except control.NotRunning:
        _warn("the site does not run: nobody is registered")


def _contacts(folder: Path, name: str) -> list[dict[str, Any]]:
    try:
        found = control.ask(folder, "ul.lookup", "location", name)
    except control.Denied:
        return []  # so it says that there is none
    contacts = [entry["Contact"] for entry in found["Contacts"]]
    return [
        {
            "uri": _plain(contact["Address"]),
            "expires_s": contact["Expires"],
            "agent": _plain(contact["User-Agent"]),
        }
        for contact in contacts
    ]


def _plain(text: str) -> str:
    """What a phone says of itself, without the signs that move a terminal's cursor."""
    return "".join(letter for letter in text if letter.isprintable())


@site.command()
@click.argument("name")
@click.option("--busy", metavar="TARGET", help="Where calls go while the user is busy.")
@click.option("--unanswered", metavar="TARGET", help="Where calls go that are not answered in time.")
@click.option("--away", metavar="TARGET", help="Where calls go while the user is not registered.")
@click.option("--seconds", type=int, help="How long the user is rung.")
@click.option("--off", is_flag=True, help="Forward nothing.")
@_pass_place
def forward(place: Place, /, name: str, off: bool, **given: Any) -> None:
    """Forward calls for a user to a user, a group or a number. What is not named stays as it is."""
    given = {key: value for key, value in given.items() if value is not None}
    if off == bool(given):
        raise click.UsageError("name what shall be forwarded where, or --off")
    with place.change() as users:
        user = users.user(name)
        before = {} if off else {key: user[key] for key in ("busy", "unanswered", "away", "seconds")}
        users.set_forward(name, **(before | given))
        ours = {own["number"] for own in users.facts()["numbers"]}
        given.pop("seconds", None)
        for target in filter(forms.is_number, given.values()):
            number = forms.dialled(target, place.settings.numbers.country)
            if number not in ours and not any(forms.permits(prefix, number) for prefix in user["may_call"]):
                _warn(
                    f"{name} may not call {number}, so nothing goes there until 'intercom site allow' says so"
                )


@site.command()
@click.argument("name")
@click.argument("prefix", nargs=-1)
@_pass_place
def allow(place: Place, name: str, prefix: tuple[str, ...]) -> None:
    """Say how the numbers begin that a user may call: 'all' for every number, nothing for none."""
    with place.change() as users:
        users.permit(name, _prefixes(prefix))


@site.command()
@click.argument("name")
@click.argument("uri", nargs=-1)
@click.option("--permanent", is_flag=True, help="301 instead of 302: the caller may remember it.")
@click.option("--off", is_flag=True, help="Let the name ring again.")
@_pass_place
def redirect(place: Place, name: str, uri: tuple[str, ...], permanent: bool, off: bool) -> None:
    """Tell callers of a name or number to call other addresses instead."""
    if off == bool(uri):
        raise click.UsageError("name an address, or --off")
    with place.change() as users:
        if off:
            users.remove_redirect(name)
            return
        users.set_redirect(name, uri, permanent=permanent)
        facts = users.facts()
        if name not in {each["name"] for each in (*facts["users"], *facts["groups"])}:
            _warn(f"there is no user or group {name}: callers of it are redirected all the same")


# Groups


@site.group()
def group() -> None:
    """Names that ring several users."""


@group.command("add")
@click.argument("name")
@click.argument("member", nargs=-1, required=True)
@click.option("--serial/--parallel", default=False, help="One after another, or all at once (as usual).")
@click.option("--seconds", type=int, default=20, show_default=True, help="Of each member, or of all.")
@click.option("--display", default="", help="A name for people.")
@_pass_place
def add_group(
    place: Place, name: str, member: tuple[str, ...], serial: bool, seconds: int, display: str
) -> None:
    """Make a group of users, or give it other members."""
    with place.change() as users:
        users.set_group(name, member, serial=serial, seconds=seconds, display=display)


@group.command("remove")
@click.argument("name")
@_pass_place
def remove_group(place: Place, name: str) -> None:
    """Remove a group; its members stay."""
    with place.change() as users:
        users.remove_group(name)


@group.command("list")
@json_option
@_pass_place
def list_groups(place: Place, as_json: bool) -> None:
    """List the groups."""
    groups = place.users().facts()["groups"]
    if as_json:
        print_json(groups)
        return
    for each in groups:
        order = "serial" if each["serial"] else "parallel"
        click.echo(f"{each['name']} {order} {each['seconds']} s: {' '.join(each['members'])}")


# Gateways


@site.group()
def gateway() -> None:
    """Trunks for telephone numbers."""


@gateway.command("add")
@click.argument("name")
@click.argument("uri")
@click.option("--priority", type=int, default=0, show_default=True, help="The highest is tried first.")
@click.option("--username", default="", help="For digest authentication there; the password is asked for.")
@click.option("--password-file", type=click.File(), help="Where the password stands; '-' for standard input.")
@click.option("--register", is_flag=True, help="Register there, so that calls come in.")
@click.option(
    "--range", "ranges", multiple=True, metavar="PREFIX", help="Numbers beginning so; else every number."
)
@_pass_place
def add_gateway(
    place: Place,
    name: str,
    uri: str,
    priority: int,
    username: str,
    password_file: Any,
    register: bool,
    ranges: tuple[str, ...],
) -> None:
    """Add a gateway, such as sip:trunk.example:5060;transport=tcp, or change one."""
    if "transport=tls" in uri and not place.settings.tls.trunk_authority:
        raise Refused("a gateway over tls needs tls.trunk_authority in the settings")
    if reason := server.wrong_gateway(uri, place.settings):
        raise Refused(reason)
    secret = ""
    if password_file is not None:
        secret = password_file.readline().rstrip("\r\n")
    elif username:
        secret = click.prompt(f"Password of {username} at {uri}", hide_input=True, err=True)
    with place.change() as users:
        users.set_gateway(
            name,
            uri,
            priority=priority,
            username=username,
            password=secret,
            registers=register,
            ranges=_prefixes(ranges) or [""],
        )


@gateway.command("remove")
@click.argument("name")
@_pass_place
def remove_gateway(place: Place, name: str) -> None:
    """Remove a gateway."""
    with place.change() as users:
        users.remove_gateway(name)


@gateway.command("list")
@json_option
@_pass_place
def list_gateways(place: Place, as_json: bool) -> None:
    """List the gateways and our own numbers."""
    facts = place.users().facts()
    if as_json:
        print_json({key: facts[key] for key in ("gateways", "numbers")})
        return
    for each in facts["gateways"]:
        account = f" as {each['username']}" if each["username"] else ""
        registers = ", registers" if each["registers"] else ""
        ranges = " ".join(prefix or EVERY for prefix in each["ranges"])
        click.echo(f"{each['name']} {each['uri']}{account}{registers}, priority {each['priority']}: {ranges}")
    for own in facts["numbers"]:
        click.echo(f"{own['number']} rings {own['target']}")


@gateway.command("number")
@click.argument("number")
@click.argument("target", required=False)
@click.option("--off", is_flag=True, help="The number is no longer ours.")
@_pass_place
def own_number(place: Place, number: str, target: str | None, off: bool) -> None:
    """Say which user or group one of our own numbers rings."""
    if off == (target is not None):
        raise click.UsageError("name whom it rings, or --off")
    with place.change() as users:
        if target is None:
            users.remove_number(number)
        else:
            users.set_number(number, target)


# Everything


@site.command("export")
@click.option("--secrets", is_flag=True, help="Also what only another server of this site may know.")
@click.option("--dns", is_flag=True, help="Instead: the DNS zone's lines of this server; each has its own.")
@_pass_place
def export(place: Place, secrets: bool, dns: bool) -> None:
    """Print users, groups, gateways and numbers as JSON, for `import` on another machine."""
    from intercom.site.zone import zone

    if dns:
        click.echo("\n".join(zone(place.settings)))
        return
    facts = place.users().facts(secrets=secrets)
    if secrets:
        facts["key"] = server.site_key(place.folder)
    print_json(facts)


@site.command("import")
@click.argument("file", type=click.File())
@_pass_place
def import_(place: Place, file: Any) -> None:
    """Replace users, groups, gateways and numbers by those of an export: all, or nothing if it is wrong."""
    try:
        facts = json.load(file)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{file.name} is not JSON: {error}") from None
    key = facts.pop("key", None) if isinstance(facts, dict) else None
    with place.change() as users:
        with users.together():
            users.replace(facts)
            changed = key is not None and server.set_site_key(place.folder, key)
        if changed:
            _warn("the site's key is another one now: restart the site")


@site.command()
@json_option
@_pass_place
def status(place: Place, as_json: bool) -> None:
    """Show how the running site is."""
    from intercom.site.status import lines
    from intercom.site.status import status as read

    place.become_owner()
    facts = read(place.folder, place.settings)
    if as_json:
        print_json(facts)
    else:
        for line in lines(facts):
            click.echo(line)
