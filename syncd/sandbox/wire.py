"""The request line as it was received: routes and queries are read from the raw text, without normalization."""

from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

LOGIN = "/api/v3/login/oauth/token"
SESSIONS = "/api/v3/chats/sessions"
FOLDERS = "/api/v3/chats/folders"
CONTROL = "/_sandbox/"

RouteName = Literal["login", "collection", "item", "source", "folders", "folder", "unknown"]
Query = dict[str, list[str]]
_WHOLE: Final[dict[str, RouteName]] = {LOGIN: "login", SESSIONS: "collection", FOLDERS: "folders"}


class Route(NamedTuple):
    """The resource of a path, and the id in it, decoded exactly once."""

    name: RouteName
    id: str = ""


def route_of(raw_path: str) -> Route:
    """Find the route of a raw path; a path with a slash in the id is unknown."""
    path = raw_path.partition("?")[0]
    if (name := _WHOLE.get(path)) is not None:
        return Route(name)
    if path.startswith(f"{FOLDERS}/"):
        folder = path.removeprefix(f"{FOLDERS}/")
        return Route("folder", unquote(folder)) if folder and "/" not in folder else Route("unknown")
    if path.startswith(f"{SESSIONS}/"):
        match path.removeprefix(f"{SESSIONS}/").split("/"):
            case [id] if id:
                return Route("item", unquote(id))
            case ["source", id] if id:
                return Route("source", unquote(id))
    return Route("unknown")


def query_of(raw_path: str, *, plus_is_space: bool) -> Query:
    """Return the values of each query parameter, in the order of the text."""
    text = raw_path.partition("?")[2]
    if not plus_is_space:
        text = text.replace("+", quote("+"))
    values: dict[str, list[str]] = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        values.setdefault(key, []).append(value)
    return values
