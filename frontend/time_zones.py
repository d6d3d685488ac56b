"""The time zones that people choose from."""

from __future__ import annotations

from zoneinfo import available_timezones


def time_zones(chosen: str) -> list[str]:
    """Places and UTC, without what the database of zones holds besides: “Factory”, “localtime”, abbreviations. One that
    was chosen elsewhere stays to be chosen."""
    known = available_timezones()
    places = {name for name in known if "/" in name and not name.startswith("Etc/")}
    return sorted(places | {"UTC"} | ({chosen} & known))
