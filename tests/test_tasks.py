"""Task groups: which error comes out of one."""

from __future__ import annotations

import pytest

from syncd.aio import task_group
from syncd.errors import DatabaseBusyError, DatabaseReplacedError, DatabaseUnusableError


async def fail(error: Exception) -> None:
    raise error


async def fail_together(*errors: Exception) -> None:
    async with task_group() as group:
        for error in errors:
            group.start_soon(fail, error)


@pytest.mark.parametrize(
    "kinds",
    [
        (DatabaseUnusableError,),
        (DatabaseReplacedError, DatabaseUnusableError),
        (DatabaseUnusableError, DatabaseReplacedError),
        (DatabaseReplacedError, DatabaseBusyError),
    ],
)
async def test_errors_of_one_family_come_out_as_the_first_of_them(kinds: tuple[type[Exception], ...]) -> None:
    errors = [kind("why") for kind in kinds]
    with pytest.raises(DatabaseUnusableError) as raised:
        await fail_together(*errors)
    assert raised.value in errors


async def test_errors_that_have_nothing_in_common_come_out_together() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await fail_together(DatabaseUnusableError("why"), ValueError("a bug"))
    assert {type(error) for error in raised.value.exceptions} == {DatabaseUnusableError, ValueError}
