"""A settings file is used whole or not at all, and every mistake in it is said at once."""

import random
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercom.core.policy import Caller, Door, Mode, Notice, Occasion, Plan, Policy, Target
from intercom.settings.loading import LARGEST_FILE, WrongSettings, load, policy, read_password
from intercom.settings.schema import Settings

PASSWORD = "hunter2-and-more"  # a needle for the searches below

VALID = """\
[station]
name = "Front door"
board = "simulated"

[sip]
port = 5070

[[account]]
uri = "sip:door@site.example"
registrar = "sip:127.0.0.1:5060;transport=udp"
username = "door"
password_file = "door.secret"
expires_seconds = 120

[[button]]
name = "bell"
pin = 17
ring = [{ to = "sip:flat1@site.example", seconds = 25 }, { to = "sip:guard@site.example" }]

[[lamp]]
name = "status"
pin = 22

[[door]]
name = "front"
pin = 27
release_seconds = 5
codes = [{ dtmf = "4711#" }, { dtmf = "0*0#" }]

[sound]
device = "none"

[incoming]
permit = ["sip:Flat1@Site.Example", "sip:*@home.example"]
answer = "automatic"

[[incoming.peer]]
uri = "sip:Concierge@Site.Example"
mode = "listen"

[timing]
settle_seconds = 0.05
repeat_seconds = 1
talk_seconds = 60
"""

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "door.secret"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def write(tmp_path: Path, secret: Path) -> Write:
    def write(content: str | bytes) -> Path:
        file = tmp_path / "intercom.toml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def mistakes(file: Path) -> list[tuple[str, str]]:
    """What is wrong with a file, as key and reason; each names the file and fits on one line."""
    with pytest.raises(WrongSettings) as caught:
        load(file)
    for mistake in caught.value.mistakes:
        assert mistake.file == file
        assert str(mistake).startswith(f"{file}: ")
        assert "\n" not in str(mistake)
    assert str(caught.value) == "\n".join(map(str, caught.value.mistakes))
    return [(mistake.key, mistake.reason) for mistake in caught.value.mistakes]


# A good file


def test_a_good_file(write: Write) -> None:
    loaded = load(write(VALID))
    account = loaded.account[0]
    assert (account.name, account.host, account.port, account.transport) == (
        "door@site.example", "127.0.0.1", 5060, "udp"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("registrar", "host", "port", "transport"),
    [
        ("sip:pbx.example", "pbx.example", None, "udp"),
        ("sip:pbx.example;transport=tcp", "pbx.example", None, "tcp"),
        ("sip:192.0.2.1:65535;transport=udp", "192.0.2.1", 65535, "udp"),
        ("sip:[2001:db8::1]:5070;transport=tcp", "2001:db8::1", 5070, "tcp"),
    ],
)
def test_the_registrar_in_parts(
    write: Write, registrar: str, host: str, port: int | None, transport: str
) -> None:
    account = load(write(VALID.replace("sip:127.0.0.1:5060;transport=udp", registrar))).account[0]
    assert (account.host, account.port, account.transport) == (host, port, transport)


def with_second(*lines: str) -> str:
    table = VALID[VALID.index("[[account]]") : VALID.index("[[button]]")]
    return VALID.replace("[[button]]", "\n".join([table, *lines, "", "[[button]]"]), 1)


def test_several_accounts_in_order_of_preference(write: Write) -> None:
    accounts = load(write(with_second('name = "spare"'))).account
    assert [account.name for account in accounts] == ["door@site.example", "spare"]


def test_accounts_with_one_name(write: Write) -> None:
    reason = "'door@site.example' is already the name of account[1]: give it another with name = ..."
    assert mistakes(write(with_second())) == [("account[2].name", reason)]


def test_an_outbound_proxy_is_where_requests_go(write: Write) -> None:
    text = VALID.replace("expires_seconds", 'proxy = "sip:edge.example;transport=tcp"\nexpires_seconds')
    account = load(write(text)).account[0]
    assert (account.registrar, account.host) == ("sip:127.0.0.1:5060;transport=udp", "edge.example")
    assert (account.port, account.transport) == (None, "tcp")


def test_name_servers_with_and_without_a_port(write: Write) -> None:
    text = '[network]\nnameservers = ["192.0.2.53", "127.0.0.1:5353", "[2001:db8::53]:54"]\n'
    assert load(write(VALID)).network.servers == ()
    assert load(write(VALID + text)).network.servers == (
        ("192.0.2.53", 53),
        ("127.0.0.1", 5353),
        ("2001:db8::53", 54),
    )


NO_NAME_SERVER = "is not the address of a name server, with :PORT if wanted; one of IPv6 stands in brackets"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("ns.example", NO_NAME_SERVER),
        ("::1", NO_NAME_SERVER),
        ("192.0.2.256", "'192.0.2.256' does not appear to be an IPv4 or IPv6 address"),
        ("[::g]", NO_NAME_SERVER),
        ("[fe80::53]", "is a link-local address (fe80::), for which no interface can be given"),
        ("192.0.2.53:0", "names port 0, which is not between 1 and 65535"),
    ],
)
def test_a_wrong_name_server(write: Write, server: str, reason: str) -> None:
    text = f'[network]\nnameservers = ["{server}"]\n'
    assert ("network.nameservers[1]", reason) in mistakes(write(VALID + text))


TURN = '[network]\nice = true\nstun = "stun.example:3478"\n[network.turn]\nserver = "[2001:db8::1]:3478"\n'


def test_a_turn_server_and_its_password(write: Write) -> None:
    network = load(write(f'{VALID}{TURN}username = "door"\npassword_file = "door.secret"\n')).network
    assert network.turn is not None
    assert (network.stun_place, network.turn.place) == (("stun.example", 3478), ("2001:db8::1", 3478))
    text = f'{VALID}{TURN}username = "door"\npassword_file = "none.secret"\n'
    ((key, reason),) = mistakes(write(text))
    assert key == "network.turn.password_file"
    assert reason.endswith("none.secret cannot be read: No such file or directory")


NO_RELAY = "is not HOST:PORT, such as stun.site.example:3478; an address of IPv6 stands in brackets"


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ('ice = true\nstun = "stun.example"', ("network.stun", NO_RELAY)),
        ('ice = true\nstun = "::1"', ("network.stun", NO_RELAY)),
        ('ice = true\nstun = "a:0"', ("network.stun", "names port 0, which is not between 1 and 65535")),
        ('stun = "a:3478"', ("network", "stun is used by ICE only: it needs ice = true")),
        ("ice = true\n[network.turn]", ("network.turn.username", "is missing")),
        ("ice = 1", ("network.ice", "Input should be a valid boolean")),
    ],
)
def test_a_wrong_relay(write: Write, lines: str, mistake: tuple[str, str]) -> None:
    assert mistake in mistakes(write(f"{VALID}[network]\n{lines}\n"))


def test_the_policy_that_a_file_makes(write: Write) -> None:
    assert policy(load(write(VALID))) == Policy(
        buttons={"bell": Plan((Target("sip:flat1@site.example", 25), Target("sip:guard@site.example", 30)))},
        doors={"front": Door(5, frozenset({"4711#", "0*0#"}))},
        callers={
            "sip:flat1@site.example": Caller(automatic=True),
            "sip:*@home.example": Caller(automatic=True),
            "sip:concierge@site.example": Caller(mode=Mode.LISTEN),
        },
        redirects=frozenset({"sip:*@site.example", "sip:*@127.0.0.1"}),
        settle_seconds=0.05,
        repeat_seconds=1,
        talk_seconds=60,
    )


def test_the_policy_of_the_shortest_file_answers_nobody_by_itself(write: Write) -> None:
    short = '[station]\nboard = "simulated"\n' + VALID[VALID.index("[[account]]") : VALID.index("[[lamp]]")]
    rules = policy(load(write(short)))
    assert rules.doors == {}
    assert rules.callers == {}
    assert rules == Policy(rules.buttons, {}, redirects=rules.redirects)


# Mistakes


def test_somebody_who_may_call_in_two_ways(write: Write) -> None:
    text = VALID.replace("sip:Concierge@Site.Example", "sip:FLAT1@site.example")
    reason = "sip:flat1@site.example may call in one way only: name it once"
    assert ("incoming", reason) in mistakes(write(text))


def test_every_mistake_is_told_at_once_with_its_key(write: Write) -> None:
    text = (
        VALID.replace('name = "Front door"', 'name = ""')
        .replace("port = 5070", 'port = "5070"')
        .replace('username = "door"\n', "")
        .replace("pin = 17", "pin = 54")
        .replace('to = "sip:guard@site.example"', 'to = "guard"')
        .replace('name = "status"', 'name = "status"\ncolour = "red"')
        .replace("release_seconds = 5", "release_seconds = 61")
        .replace('dtmf = "0*0#"', 'dtmf = "0A0#"')
        .replace('answer = "automatic"', 'answer = "always"')
        .replace('"sip:*@home.example"', '"home.example"')
    )
    assert mistakes(write(text + "[web]\nport = 80\n")) == [
        ("station.name", "must be 1 to 32 letters, digits, spaces, '_', '.' or '-'"),
        ("sip.port", "Input should be a valid integer"),
        ("account[1].username", "is missing"),
        ("button[1].ring[2].to", "is not a SIP address such as sip:flat1@site.example"),
        ("button[1].pin", "Input should be less than or equal to 27"),
        ("lamp[1].colour", "is not a known setting"),
        ("door[1].release_seconds", "Input should be less than or equal to 60"),
        ("door[1].codes[2].dtmf", "must be 1 to 15 digits or '*', and '#' at the end"),
        ("incoming.answer", "Input should be 'press' or 'automatic'"),
        ("incoming.permit[2]", "is not sip:user@host without a port, or sip:*@host for everyone of a domain"),
        ("web", "is not a known setting"),
    ]


def test_an_empty_file_lacks_what_every_station_needs(write: Write) -> None:
    assert mistakes(write("")) == [
        ("station", "is missing"),
        ("account", "is missing"),
        ("button", "is missing"),
    ]


def test_a_wrong_entry_is_not_also_called_missing(write: Write) -> None:
    text = VALID.replace("ring = [{ to", "ring = [{ too")
    keys = [key for key, _ in mistakes(write(text))]
    assert keys == ["button[1].ring[1].to", "button[1].ring[1].too"]


def test_a_list_whose_only_entry_is_wrong_is_not_also_called_too_short(write: Write) -> None:
    text = VALID.replace(', { to = "sip:guard@site.example" }', "").replace(
        'to = "sip:flat1@site.example"', "to = 5"
    )
    assert mistakes(write(text)) == [("button[1].ring[1].to", "Input should be a valid string")]


def test_an_empty_list_is_too_short(write: Write) -> None:
    text = VALID.replace(
        '[{ to = "sip:flat1@site.example", seconds = 25 }, { to = "sip:guard@site.example" }]', "[]"
    )
    ((key, reason),) = mistakes(write(text))
    assert key == "button[1].ring"
    assert reason == "has no entry"


@pytest.mark.parametrize(
    ("registrar", "reason"),
    [
        (
            "sip:2001:db8::1",
            "is not sip:HOST or sip:HOST:PORT, with ;transport=udp, tcp or tls if wanted",
        ),
        ("sip:...", "a label of the name is empty or longer than 63"),
        ("sip:pbx..example", "a label of the name is empty or longer than 63"),
        (f"sip:{'a' * 64}.example", "a label of the name is empty or longer than 63"),
        ("sip:999.9.9.9", "999.9.9.9 looks like an IPv4 address and is none"),
        ("sip:1.2.3:5060;transport=tcp", "1.2.3 looks like an IPv4 address and is none"),
        ("sip:[fe80::1]", "is a link-local address (fe80::), for which no interface can be given"),
        ("sip:pbx.example:0", "names port 0, which is not between 1 and 65535"),
        ("sip:pbx.example:65536", "names port 65536, which is not between 1 and 65535"),
        (
            "pbx.example",
            "is not sip:HOST or sip:HOST:PORT, with ;transport=udp, tcp or tls if wanted",
        ),
        (
            "sips:pbx.example",
            "is not sip:HOST or sip:HOST:PORT, with ;transport=udp, tcp or tls if wanted",
        ),
    ],
)
def test_a_wrong_registrar(write: Write, registrar: str, reason: str) -> None:
    text = VALID.replace("sip:127.0.0.1:5060;transport=udp", registrar)
    assert ("account[1].registrar", reason) in mistakes(write(text))
    text = VALID.replace("expires_seconds", f'proxy = "{registrar}"\nexpires_seconds')
    assert mistakes(write(text)) == [("account[1].proxy", reason)]


@pytest.mark.parametrize("host", ["pbx.example.", f"{'a' * 63}.example", "192.0.2.1", "1.2.example", "pbx"])
def test_hosts_that_may_stand_in_a_registrar(write: Write, host: str) -> None:
    account = load(write(VALID.replace("sip:127.0.0.1:5060;transport=udp", f"sip:{host}"))).account[0]
    assert account.host == host


TLS = VALID.replace("sip:127.0.0.1:5060;transport=udp", "sip:pbx.example;transport=tls")
PIN = "AB:" * 31 + "cd"


def with_account(text: str, *lines: str) -> str:
    return text.replace("expires_seconds = 120", "\n".join(("expires_seconds = 120", *lines)))


@pytest.mark.parametrize(
    ("text", "lines", "sound"),
    [
        (VALID, [], "off"),
        (TLS, [], "optional"),
        (TLS, ['srtp = "off"'], "off"),
        (TLS, ['srtp = "mandatory"'], "mandatory"),
        (VALID, ['srtp = "mandatory"', 'srtp_keys = "dtls"'], "mandatory"),
    ],
)
def test_sound_is_encrypted_where_its_keys_are_safe(
    write: Write, text: str, lines: list[str], sound: str
) -> None:
    assert load(write(with_account(text, *lines))).account[0].sound == sound


@pytest.mark.parametrize(
    ("text", "lines", "reason"),
    [
        (VALID, ['srtp = "mandatory"'], "sends its keys in the clear without ;transport=tls"),
        (VALID, ['srtp = "optional"'], "sends its keys in the clear without ;transport=tls"),
        (VALID, [f'fingerprint = "{PIN}"'], "are for a registrar with ;transport=tls"),
        (TLS, [f'fingerprint = "{PIN}"', 'ca_file = "ca.pem"'], "leave one of them out"),
    ],
)
def test_protection_that_is_none(write: Write, text: str, lines: list[str], reason: str) -> None:
    ((key, said),) = [
        each for each in mistakes(write(with_account(text, *lines))) if "ca_file" not in each[0]
    ]
    assert key == "account[1]"
    assert reason in said


def test_a_pinned_certificate(write: Write) -> None:
    account = load(write(with_account(TLS, f'fingerprint = "{PIN}"'))).account[0]
    assert account.fingerprint == "ab" * 31 + "cd"
    assert account.authorities is None
    wrong = mistakes(write(with_account(TLS, f'fingerprint = "{PIN}0"')))
    assert wrong == [("account[1].fingerprint", "is not the SHA-256 of a certificate: 64 hexadecimal digits")]


def test_authorities_that_cannot_be_used(write: Write, tmp_path: Path) -> None:
    missing = mistakes(write(with_account(TLS, 'ca_file = "ca.pem"')))
    assert missing == [
        ("account[1].ca_file", f"{tmp_path / 'ca.pem'} cannot be read: No such file or directory")
    ]
    (tmp_path / "ca.pem").write_text("nothing")
    wrong = mistakes(write(with_account(TLS, 'ca_file = "ca.pem"')))
    assert wrong == [("account[1].ca_file", f"{tmp_path / 'ca.pem'} holds no certificate in PEM form")]


def test_names_pins_and_codes_that_clash(write: Write) -> None:
    more = """
[[button]]
name = "bell"
pin = 22
ring = [{ to = "sip:flat2@site.example" }]

[[lamp]]
name = "status"
pin = 5

[[door]]
name = "front"
pin = 17
codes = [{ dtmf = "1#" }, { dtmf = "4711#" }, { dtmf = "1#" }]

[[door]]
name = "bell"
pin = 6
codes = [{ dtmf = "4711#" }]
"""
    assert mistakes(write(VALID + more)) == [
        ("button[2].name", "'bell' is already the name of button[1]"),
        ("lamp[1].pin", "22 is already the pin of button[2]"),
        ("lamp[2].name", "'status' is already the name of lamp[1]"),
        ("door[2].name", "'front' is already the name of door[1]"),
        ("door[2].pin", "17 is already the pin of button[1]"),
        ("door[2].codes[2].dtmf", "is already a code of door[1]"),
        ("door[2].codes[3].dtmf", "is already a code of door[2]"),
        ("door[3].codes[1].dtmf", "is already a code of door[1]"),
    ]


def test_clashes_are_found_behind_other_mistakes_and_beside_wrong_types(write: Write) -> None:
    text = VALID.replace("pin = 22", "pin = 17").replace('name = "front"', "name = 5") + "colour = 1\n"
    keys = [key for key, _ in mistakes(write(text))]
    assert keys == ["door[1].name", "timing.colour", "lamp[1].pin"]


@pytest.mark.parametrize("kind", ["button", "door", "account", "lamp"])
@pytest.mark.parametrize("value", ["5", "[5]", '"x"', "[[5]]", "{ name = 1 }"])
def test_wrong_shapes_are_mistakes_not_errors(write: Write, kind: str, value: str) -> None:
    keys = {key for key, _ in mistakes(write(f"{kind} = {value}\n"))}
    assert any(key.startswith(kind) for key in keys)


# Files that are no settings


MESSAGE = '[[message]]\nto = ["sip:flat1@site.example"]\non = ["press"]\n'


def test_whom_to_write_to(write: Write) -> None:
    rules = policy(load(write(VALID + MESSAGE + 'buttons = ["bell"]\n'))).notices
    readers, bell = ("sip:flat1@site.example",), frozenset({"bell"})
    assert rules == (Notice(readers, frozenset({Occasion.PRESS}), bell),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (MESSAGE + 'buttons = ["office"]', "message[1].buttons[1]: there is no button 'office'"),
        (MESSAGE.replace("press", "rain"), "message[1].on[1]: "),
        (MESSAGE.replace('"press"', ""), "message[1].on: has no entry"),
        (MESSAGE.replace("sip:flat1", "tel:1"), "message[1].to[1]: is not a SIP address"),
    ],
)
def test_a_message_to_nobody_or_about_nothing(write: Write, text: str, reason: str) -> None:
    with pytest.raises(WrongSettings) as wrong:
        load(write(VALID + text))
    assert reason in str(wrong.value)


def test_a_door_that_no_message_could_open(write: Write) -> None:
    door = VALID.replace("release_seconds", "open_by_message = true\nrelease_seconds")
    secure = door.replace("transport=udp", "transport=tls")
    for text, reason in (
        (door, "needs an account with ;transport=tls: a code in the clear opens nothing"),
        (re.sub("codes = .*", "", secure), "needs codes"),
        (secure.partition("[incoming]")[0], "needs people who may write: they are those who may call"),
    ):
        with pytest.raises(WrongSettings) as wrong:
            load(write(text))
        assert f"door[1].open_by_message: {reason}" in str(wrong.value)
    assert policy(load(write(secure))).doors["front"].by_message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "none.toml") == [("", "cannot be read: No such file or directory")]
    assert mistakes(tmp_path) == [("", "cannot be read: Is a directory")]


def test_a_file_of_ten_megabytes(write: Write) -> None:
    assert mistakes(write(b"#" * 10_000_000)) == [("", "is larger than 1 MiB: this is not a settings file")]


def test_the_largest_file_is_still_read(write: Write) -> None:
    padded = VALID.encode() + b"#" * (LARGEST_FILE - len(VALID))
    assert isinstance(load(write(padded)), Settings)


def test_a_file_that_is_no_text(write: Write) -> None:
    assert mistakes(write(b'[station]\nname = "\xff"')) == [("", "is not UTF-8 text (byte 18)")]


@pytest.mark.parametrize(
    "text", ["station = ", "x = " + "[" * 5000, "x = " + "1" * 5000, "a.b = 1\na = 2", "\0", "x = 2021-02-30"]
)
def test_a_file_that_is_no_toml(write: Write, text: str) -> None:
    ((key, reason),) = mistakes(write(text))
    assert key == ""
    assert reason.startswith("is not TOML: ")
    assert len(reason) < 200


# Damage


def judge(file: Path) -> Settings | WrongSettings:
    """Whatever stands in a file, these two are all that may come out; anything else fails the test."""
    try:
        return load(file)
    except WrongSettings as wrong:
        return wrong


def test_a_file_cut_short_at_any_byte(write: Write) -> None:
    whole = VALID.encode()
    complete = [end for end in range(len(whole) + 1) if isinstance(judge(write(whole[:end])), Settings)]
    assert len(whole) in complete
    needed = whole.index(b"[[lamp]]") - 2
    assert not [end for end in complete if end < needed - 1], "half a file is not a smaller file"


def test_flipped_bits(write: Write) -> None:
    whole, random_bits = VALID.encode(), random.Random(7)
    for place in random_bits.sample(range(len(whole) * 8), 1500):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        judge(write(bytes(damaged)))


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise(write: Write, noise: bytes) -> None:
    assert isinstance(judge(write(noise)), WrongSettings)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)).filter(
        lambda value: value is not None
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner)),
    max_leaves=5,
)


def toml(value: object) -> str:
    """A value as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
        case _:
            return str(value)


KEYS = [line for line in VALID.splitlines() if " = " in line]


@given(st.sampled_from(KEYS), values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_for_any_key(write: Write, line: str, value: object) -> None:
    judge(write(VALID.replace(line, f"{line.partition(' = ')[0]} = {toml(value)}", 1)))


# Secrets


def test_neither_code_nor_password_is_ever_shown(write: Write) -> None:
    loaded = load(write(VALID))
    assert PASSWORD not in repr(loaded)
    text = VALID.replace('"4711#"', '"4711A#"').replace("[sound]", f'[sound]\npassword = "{PASSWORD}"')
    with pytest.raises(WrongSettings) as caught:
        load(write(text))
    told = "".join(traceback.format_exception(caught.value))
    assert "4711A" not in told
    assert PASSWORD not in told


def test_a_password_is_the_line_in_the_file(tmp_path: Path, secret: Path) -> None:
    assert read_password("door.secret", tmp_path / "intercom.toml") == PASSWORD
    assert read_password(str(secret), Path("/etc/intercom/intercom.toml")) == PASSWORD


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_password_that_others_may_read_is_refused(write: Write, secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert mistakes(write(VALID)) == [
        ("account[1].password_file", f"{secret} may be read by others: chmod 600 it")
    ]


def test_a_password_that_is_missing(write: Write, secret: Path) -> None:
    secret.unlink()
    assert mistakes(write(VALID)) == [
        ("account[1].password_file", f"{secret} cannot be read: No such file or directory")
    ]


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"a\0b", b"tab\tbed"])
def test_a_password_must_be_one_line(write: Write, secret: Path, content: bytes) -> None:
    secret.write_bytes(content)
    assert mistakes(write(VALID)) == [
        ("account[1].password_file", f"{secret} must hold the password as one line of text")
    ]


def test_a_password_must_be_text(write: Write, secret: Path) -> None:
    secret.write_bytes(b"\xff\xfe\n")
    assert mistakes(write(VALID)) == [("account[1].password_file", f"{secret} is not UTF-8 text")]


@pytest.mark.parametrize("name", ["", "a\\u0000b", "a\\nb"])
def test_a_password_file_that_cannot_be_a_name(write: Write, name: str) -> None:
    assert ("account[1].password_file", "must be one line of text") in mistakes(
        write(VALID.replace("door.secret", name))
    )


def test_a_credential_wins_over_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "door.secret").write_text("from systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert read_password("/elsewhere/door.secret", write(VALID)) == "from systemd"


def test_without_such_a_credential_the_file_counts(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "nowhere"))
    assert read_password("door.secret", write(VALID)) == PASSWORD
