"""A house to try a door station in: a SIP server, phones, a sound card and voices, on loopback.

    with Site(folder / "site", users=passwords) as site, VirtualCard(folder / "card") as card:
        with Phone(folder / "flat1", site.account("flat1"), answer="auto", records=True) as flat:
            site.wait_registered("flat1")
            …                                   # the station runs with card.environment and rings flat1
            flat.wait_established()
            card.say(visitor)
            wait_heard(visitor, flat.recording(), timeout=10)

Every part is a context manager, keeps its files in its own folder and leaves no process behind.
"""
