"""Validation of the arguments of public calls, as on the seed page (`validate_call`), with errors of our own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from pydantic import ConfigDict, ValidationError, validate_call

from syncd.albert.errors import InvalidIdError, InvalidRequestError

P = ParamSpec("P")
R = TypeVar("R")
_MISUSED = {
    "missing_argument", "missing_keyword_only_argument", "unexpected_keyword_argument",
    "unexpected_positional_argument", "multiple_argument_values",
}  # fmt: skip
"""pydantic's names for calls that Python itself would refuse with a TypeError."""
_IDS = {"id", "source_session_id"}


def validated(function: Callable[P, R]) -> Callable[P, R]:
    """Validate the arguments of a function or coroutine function before it runs.

    A dict is accepted for a model, as on the seed page.

    Raises
    ------
    TypeError
        An argument is missing or unknown.
    InvalidRequestError
        An argument has the wrong type or value. Nothing was sent.
    InvalidIdError
        An id is not text. Nothing was sent.
    """
    checked: Callable[..., Any] = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - the function's
            try:
                return await checked(*args, **kwargs)
            except ValidationError as error:
                own_error = _translated(function, error)
            raise own_error

        return cast("Callable[P, R]", asynchronous)

    @functools.wraps(function)
    def synchronous(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return cast("R", checked(*args, **kwargs))
        except ValidationError as error:
            own_error = _translated(function, error)
        raise own_error

    return synchronous


def _translated(function: Callable[..., Any], error: ValidationError) -> Exception:
    """Describe the first problem; the values are the caller's data and are not quoted."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    # a misspelled keyword is the reason of a missing one
    first = next((problem for problem in problems if problem["type"].startswith("unexpected")), problems[0])
    place = ".".join(str(part) for part in first["loc"])
    kind: type[Exception] = InvalidIdError if place in _IDS else InvalidRequestError
    if first["type"] in _MISUSED:
        kind = TypeError
    return kind(f"{function.__name__}(): {place}: {first['msg'][:1].lower()}{first['msg'][1:]}")
