"""The settings of a site are used whole or not at all, and every mistake in them is said at once."""

from pathlib import Path

import pytest

from intercom.settings.loading import WrongSettings
from intercom.site import places
from intercom.site.settings import SiteSettings, load

ROOT = Path(__file__).parents[3]


def mistakes(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(WrongSettings) as wrong:
        load(file)
    return [mistake.key for mistake in wrong.value.mistakes]


def test_nothing_need_be_set(tmp_path: Path) -> None:
    (tmp_path / "site.toml").touch()
    assert load(tmp_path / "site.toml") == SiteSettings()


def test_the_systems_file_may_be_missing_and_a_named_one_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SETTINGS", tmp_path / "none.toml")
    assert load(tmp_path / "none.toml") == SiteSettings()
    with pytest.raises(WrongSettings, match="cannot be read"):
        load(tmp_path / "other.toml")


def test_the_example_says_the_defaults(tmp_path: Path) -> None:
    """With its comment signs taken away it is the same."""
    example = (ROOT / "deploy/settings/site.toml").read_text()
    assert load(ROOT / "deploy/settings/site.toml") == SiteSettings()
    lines = [line.removeprefix("# ") for line in example.splitlines()[3:]]
    (tmp_path / "site.toml").write_text("\n".join(lines))
    everything = load(tmp_path / "site.toml")
    apart = {"tls", "nodes", "numbers"}
    assert everything.model_dump(exclude=apart) == SiteSettings().model_dump(exclude=apart)
    assert everything.nodes.own == "10.0.0.1:5066"


def test_every_mistake_at_once(tmp_path: Path) -> None:
    text = """
    colour = "red"
    [site]
    domain = 'x";'
    digest = "MD4"
    [listen]
    addresses = ["10.0.0.1", "pbx.example"]
    port = 0
    [tls]
    certificate = "/etc/a.pem"
    [registration]
    shortest = 600
    [numbers]
    country = "+49"
    [nodes]
    own = "10.0.0.1"
    others = ["10.0.0.2:5066"]
    """
    assert sorted(mistakes(tmp_path, text)) == [
        "colour",
        "listen.addresses[2]",
        "listen.port",
        "nodes.own",
        "numbers.country",
        "registration",
        "site.digest",
        "site.domain",
        "tls",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[listen]\ntransports = []",
        '[listen]\ntransports = ["udp", "smoke"]',
        '[listen]\ntransports = ["tcp", "ws"]\nws_port = 5060',
        '[listen]\naddresses = ["0.0.0.0"]',
        '[listen]\naddresses = ["224.0.0.1"]',
        '[listen]\naddresses = ["255.255.255.255"]',
        '[listen]\naddresses = ["10.0.0.1", "10.0.0.1"]',
        '[listen]\ntransports = ["udp", "udp"]',
        '[nodes]\nown = "10.0.0.1:5066"\nothers = ["0.0.0.0:5066"]',
        '[nodes]\nown = "10.0.0.1:5066"',
        '[nodes]\nown = "10.0.0.1:5066"\nothers = ["10.0.0.1:5066"]',
        '[tls]\ncertificate = "a.pem"\nkey = "b.pem"',
        '[tls]\ncertificate = "/a\\n#!define"\nkey = "/b"',
        "[limits]\nrequests_per_second = 0",
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str) -> None:
    assert len(mistakes(tmp_path, text)) >= 1
