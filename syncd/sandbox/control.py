"""The sandbox's own paths, by which another process reads the effects and changes the server's behaviour."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from syncd.sandbox import answers
from syncd.sandbox.faults import Faults
from syncd.sandbox.habits import Habits
from syncd.sandbox.sandbox import Sandbox
from syncd.sandbox.wire import CONTROL

_VIEWS: dict[str, Callable[[Sandbox], object]] = {
    "effects": lambda sandbox: [asdict(effect) for effect in sandbox.effects],
    "requests": lambda sandbox: [asdict(request) for request in sandbox.requests],
    "sessions": lambda sandbox: list(sandbox.live().values()),
    "state": Sandbox.state,
    "habits": lambda sandbox: asdict(sandbox.habits),
    "faults": lambda sandbox: asdict(sandbox.faults),
}


async def answer(sandbox: Sandbox, request: web.BaseRequest) -> web.Response:
    """Answer a request under `/_sandbox/`; these are not recorded, and have neither faults nor tokens."""
    name = request.raw_path.removeprefix(CONTROL).partition("?")[0]
    if request.method == "GET" and name in _VIEWS:
        return answers.json_value(_VIEWS[name](sandbox))
    if request.method == "PATCH" and name in ("habits", "faults"):
        target = sandbox.habits if name == "habits" else sandbox.faults
        try:
            adjust(target, json.loads(await request.read()))
        except (ValidationError, ValueError) as error:
            return answers.json_value({"message": str(error)}, 400)
        return answers.json_value(asdict(target))
    return answers.json_value({"message": f"GET {CONTROL}" + "|".join(_VIEWS)}, 404)


def adjust(target: Habits | Faults, changes: object) -> None:
    """Set fields of the habits or faults in place: all that are named, or none with a ValueError."""
    if not isinstance(changes, dict):
        raise ValueError("a JSON object of fields is wanted")  # noqa: TRY004 - answered by 400
    checked = TypeAdapter(type(target)).validate_python(asdict(target) | changes)
    for field in fields(target):
        setattr(target, field.name, getattr(checked, field.name))
