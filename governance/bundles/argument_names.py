"""Names of argument facts. A call has them as tool/argument#kind alone, so a rule or case over another name is dead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import cedarpy

from governance.types import ARGUMENT_KINDS

_NAME: Final = re.compile(rf"(?P<tool>[^/]+__[^/]+)/.+#(?P<kind>{'|'.join(ARGUMENT_KINDS)})", re.DOTALL)
_ARGUMENTS: Final = {".": {"left": {"Var": "context"}, "attr": "args"}}


def read_by(policy: Mapping[str, Any]) -> list[str]:
    """The attributes of `context.args` that a policy, as JSON, asks for or reads."""
    return sorted(set(_read(policy["conditions"])))


def types_of(names: Iterable[str]) -> dict[str, str]:
    """The Cedar type that calls give each of them; names of another form are left out."""
    found = {name: _NAME.fullmatch(name) for name in names}
    return {name: ARGUMENT_KINDS[match["kind"]] for name, match in found.items() if match}


def policy_problems(where: str, policy: Mapping[str, Any]) -> list[str]:
    resource = policy["resource"]
    tool = resource["entity"]["id"] if resource["op"] == "==" else ""
    return _problems(where, read_by(policy), tool)


def case_problems(case: Mapping[str, Any]) -> list[str]:
    """Of a golden case: the facts it gives, and the grants it has them from."""
    where = f"Golden case “{case['name']}”"
    grants = case.get("grants") or {}
    try:
        policies = json.loads(cedarpy.policies_to_json_str(grants.get("policies", "")))["staticPolicies"]
    except ValueError as error:
        return [f"{where}: {error}"]
    types = grants.get("argument_types") or {}
    given = {*types, *(case["context"].get("args") or {})}
    right = types_of(types)
    problems = _problems(where, sorted(given), case["resource"]["uid"]["id"])
    for policy in policies.values():
        problems += policy_problems(where, policy)
    problems += [
        f"{where}: “{name}” is a {right[name]} in every call, not a {kind}."
        for name, kind in types.items()
        if right.get(name, kind) != kind
    ]
    return list(dict.fromkeys(problems))


def _problems(where: str, names: Iterable[str], tool: str) -> list[str]:
    problems: list[str] = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            problems.append(
                f"{where}: no call has an argument “{name}”. Write tool/argument#kind, such as"
                f" books__apply_credit/amount#micros; kinds are {', '.join(ARGUMENT_KINDS)}."
            )
        elif tool and match["tool"] != tool:
            problems.append(f"{where}: a call of {tool} has no argument of another tool, such as “{name}”.")
    return problems


def _read(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in (".", "has"):
            if isinstance(value.get(key), Mapping) and value[key].get("left") == _ARGUMENTS:
                yield value[key]["attr"]
        for item in value.values():
            yield from _read(item)
    elif isinstance(value, list):
        for item in value:
            yield from _read(item)
