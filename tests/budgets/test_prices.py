"""The price book: what costs what and since when; imports that are refused whole; lookups that don't query."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from budgets import prices
from budgets.models import Price
from budgets.pricelist import parse_price_list
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.clusters.types import GIB, Resources
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal

pytestmark = pytest.mark.django_db


def _list(*rows: dict[str, str]) -> bytes:
    return json.dumps(
        {"prices": [{"kind": "tool_call", "valid_from": "2026-01-01T00:00:00Z", **row} for row in rows]}
    ).encode()


def _import(actor: Principal, raw: bytes, form: str = "json") -> int:
    count = prices.import_prices(actor=actor, raw=raw, form=form, source="contract.json")
    prices.forget()
    return count


def test_the_shipped_book_counts_before_anything_is_loaded(northwind: Organisation) -> None:
    assert prices.tool_call_price(organisation_id=northwind.pk, tool="books__list") == Decimal("0.01")
    assert prices.tool_call_rate_ids(organisation_id=northwind.pk, tool="books__list") == ()


def test_loading_the_defaults_makes_rows_once_and_audits(northwind: Organisation) -> None:
    assert prices.load_default_prices(organisation_id=northwind.pk) == 3
    assert prices.load_default_prices(organisation_id=northwind.pk) == 0
    prices.forget()
    assert prices.tool_call_price(organisation_id=northwind.pk, tool="books__list") == Decimal("0.01")
    assert len(prices.tool_call_rate_ids(organisation_id=northwind.pk, tool="books__list")) == 1
    assert Entry.objects.get(event=Event.PRICES_IMPORTED).payload["count"] == 3


def test_the_most_exact_key_wins(as_finn: Principal, northwind: Organisation) -> None:
    _import(
        as_finn,
        _list({"key": "books__apply", "amount": "0.3"}, {"key": "books__*", "amount": "0.2"}, {"amount": "0.1"}),
    )
    price = {
        tool: prices.tool_call_price(organisation_id=northwind.pk, tool=tool)
        for tool in ("books__apply", "books__x", "git__x")
    }
    assert price == {"books__apply": Decimal("0.3"), "books__x": Decimal("0.2"), "git__x": Decimal("0.1")}


def test_a_new_date_replaces_a_rate_and_a_future_one_waits(as_finn: Principal, northwind: Organisation) -> None:
    tomorrow = (now() + timedelta(days=1)).isoformat()
    _import(
        as_finn,
        _list(
            {"amount": "0.1"},
            {"amount": "0.2", "valid_from": "2026-06-01T00:00:00+02:00"},
            {"amount": "9", "valid_from": tomorrow},
        ),
    )
    assert prices.tool_call_price(organisation_id=northwind.pk, tool="x__y") == Decimal("0.2")


def test_a_rate_never_changes_in_place(as_finn: Principal, northwind: Organisation) -> None:
    assert _import(as_finn, _list({"amount": "0.1"})) == 1
    assert _import(as_finn, _list({"amount": "0.10"})) == 0
    with pytest.raises(RemitError, match=r"prices.changed"):
        _import(as_finn, _list({"key": "new", "amount": "5"}, {"amount": "0.2"}))
    assert Price.objects.count() == 1


def test_another_organisations_rates_don_t_count(as_charlie: Principal, northwind: Organisation) -> None:
    _import(as_charlie, _list({"amount": "77"}))
    assert prices.tool_call_price(organisation_id=northwind.pk, tool="x__y") == Decimal("0.01")


def test_importing_is_finances(as_alice: Principal, as_dana: Principal) -> None:
    for actor in (as_alice, as_dana):
        with pytest.raises(RemitError, match=r"permission.denied"):
            _import(actor, _list({"amount": "1"}))
    assert Price.objects.count() == 0


def test_a_fresh_book_is_not_queried(northwind: Organisation, django_assert_num_queries: Callable[..., object]) -> None:
    prices.tool_call_price(organisation_id=northwind.pk, tool="x__y")
    with django_assert_num_queries(0):  # type: ignore[attr-defined]
        for _ in range(10):
            prices.tool_call_price(organisation_id=northwind.pk, tool="x__y")


def test_a_sandbox_costs_by_cores_and_memory_rounded_up(northwind: Organisation) -> None:
    half = Resources(cpu_millicores=500, memory_bytes=GIB // 2)
    rates = prices.sandbox_rates(organisation_id=northwind.pk)
    expected = rates.vcpu_second / 2 * 100 + rates.gib_second / 2 * 100
    assert prices.sandbox_price(organisation_id=northwind.pk, resources=half, seconds=Decimal(100)) == expected
    tiny = Resources(cpu_millicores=1, memory_bytes=1)
    assert prices.sandbox_price(organisation_id=northwind.pk, resources=tiny, seconds=Decimal("0.0001")) == Decimal(
        "0.000000000002"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "banana"),
        ("key", 7),
        ("amount", "-1"),
        ("amount", "1e3"),
        ("amount", "NaN"),
        ("amount", 0.1),
        ("amount", "0.0000000000001"),
        ("currency", "usd"),
        ("valid_from", "yesterday"),
        ("valid_from", "2026-01-01T00:00:00"),
        ("token_class", "output"),
        ("discount", "1"),
    ],
)
def test_a_bad_line_refuses_the_whole_file_and_is_named(field: str, value: object) -> None:
    good = {"kind": "tool_call", "amount": "1", "valid_from": "2026-01-01T00:00:00Z"}
    with pytest.raises(RemitError) as refused:
        parse_price_list(json.dumps([good, {**good, field: value}]).encode(), form="json")
    assert refused.value.code == "prices.invalid"
    assert all(error.pointer.startswith("/prices/1") for error in refused.value.errors)


@pytest.mark.parametrize("raw", [b"", b"{}", b"7", b"[1]", b"[[]]", b"\xff\xfe", b'{"prices": {"a": 1}}'])
def test_what_is_no_price_list_is_refused(raw: bytes) -> None:
    with pytest.raises(RemitError):
        parse_price_list(raw, form="json")
    if raw != b"":
        with pytest.raises(RemitError):
            assert parse_price_list(raw + b"\nx,y", form="csv")


def test_csv_says_the_same_as_json() -> None:
    raw = b"kind,key,token_class,amount,currency,valid_from\r\n"
    raw += b"model_token,acme/large,output,0.000000000015,USD,2026-01-01T00:00:00Z\r\n"
    (rate,) = parse_price_list(raw, form="csv")
    assert (rate.key, rate.token_class, rate.amount) == ("acme/large", "output", Decimal("0.000000000015"))


def test_the_command_imports_and_says_how_many(
    northwind: Organisation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(_list({"amount": "0.5"}))
    call_command("prices", "import", str(path), "--organisation", "northwind", "--json")
    assert json.loads(capsys.readouterr().out) == {"imported": 1}
    path.write_bytes(_list({"amount": "-0.5"}))
    with pytest.raises(CommandError, match="/prices/0/amount"):
        call_command("prices", "import", str(path), "--organisation", "northwind")
    with pytest.raises(CommandError, match="no organisation"):
        call_command("prices", "import", str(path), "--organisation", "nowhere")
    with pytest.raises(CommandError, match="can't be read"):
        call_command("prices", "import", str(tmp_path / "absent.json"), "--organisation", "northwind")
