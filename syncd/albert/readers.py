"""Reads the bodies of answers as models. The collections call it."""

from __future__ import annotations

import functools
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from syncd.albert.answers import one_line
from syncd.albert.errors import AlbertResponseError

M = TypeVar("M", bound=BaseModel)


class Reader(Generic[M]):
    """Reads one kind of model.

    Parameters
    ----------
    model : type[M]
        The class.
    noun : str
        The kind of record, for messages, such as `a chat session`.
    base_path : str
        The path of the collection, for messages about its listing.
    """

    def __init__(self, model: type[M], noun: str, base_path: str) -> None:
        self._model = model
        self._noun = noun
        self._base_path = base_path
        self._list: TypeAdapter[list[M]] = _list_of(model)

    def record(self, body: bytes, method: str, path: str) -> M:
        """Return the record in the body of an answer.

        Raises
        ------
        AlbertResponseError
            The answer is not such a record.
        """
        try:
            return self._model.model_validate_json(body)
        except ValidationError as error:
            reason = _summary(error)
        raise AlbertResponseError(f"the answer is not {self._noun}: {reason}", method=method, path=path)

    def item(self, item: object) -> M:
        """Return one item of a listing; raises as `items`, with the item's id."""
        try:
            return self._model.model_validate(item)
        except ValidationError as error:
            reason = _summary(error)
        item_id = item.get("id") if isinstance(item, dict) else None
        which = f"the item {item_id!r}" if isinstance(item_id, str) else "an item"
        text = one_line(f"{which} is not {self._noun}: {reason}")
        raise AlbertResponseError(text, method="GET", path=self._base_path)

    def items(self, items: list[object]) -> list[M]:
        """Return all items of a page, validated in one call.

        Raises
        ------
        AlbertResponseError
            One of them is not such a record.
        """
        try:
            return self._list.validate_python(items)
        except ValidationError as error:
            reason = _summary(error)
        raise AlbertResponseError(f"an item is not {self._noun}: {reason}", method="GET", path=self._base_path)


@functools.cache
def _list_of(model: type[M]) -> TypeAdapter[list[M]]:
    """Build the validator of a page once: that takes longer than a page."""
    return TypeAdapter(list[model])  # type: ignore[valid-type]  # a class that is an argument


def _summary(error: ValidationError) -> str:
    """Return the problems without the input, which can be confidential and large."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return one_line(
        "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems[:3])
    )
