"""The behaviour of the stand-in server: one option for each property that is not known of the real one."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

Order = Literal["created", "updated", "id", "newest"]


@dataclass
class Habits:
    """The server's permanent behaviour; every field can be changed at any time, with effect from then on."""

    # Read by pydantic when another process changes habits over HTTP: a misspelled field is an error.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", validate_default=True)

    page_size: int = field(default=100, metadata={"help": "Sessions on a page of the listing."})
    latency: float = field(default=0.0, metadata={"help": "Seconds that each request takes."})
    duplicate_create: Literal["conflict", "bad_request", "first", "duplicate"] = field(
        default="conflict",
        metadata={"help": "A second create with a known source id: 409, 400, the first session, or a second one."},
    )
    listing_lag: float = field(default=0.0, metadata={"help": "Seconds until a change is seen in the listing."})
    lookup_lag: float = field(
        default=0.0, metadata={"help": "Seconds until a change is seen by GET by id and by source id."}
    )
    order: Order = field(
        default="created", metadata={"help": "Sort order of the listing; newest is created, latest first."}
    )
    gone_status: Literal[404, 410] = field(default=404, metadata={"help": "Answer for an id that was deleted."})
    cursor_ttl: float | None = field(
        default=None, metadata={"help": "Seconds that a lastKey can be used; none: without a limit."}
    )
    cursor_status: Literal[400, 404, 410, 422] = field(
        default=400, metadata={"help": "Answer for a startKey that is expired or unknown."}
    )
    final_key: Literal["absent", "null", "empty", "repeat", "empty_page"] = field(
        default="absent",
        metadata={"help": "How the listing ends: no key, null, '', the same key again, or a page with no items."},
    )
    awkward_cursor: bool = field(
        default=False, metadata={"help": "Page keys hold + / = & % # ? spaces, quotes and non-ASCII letters."}
    )
    hollow_pages: bool = field(
        default=False,
        metadata={"help": "An empty page with a new key precedes each further page."},
    )
    plus_is_space: bool = field(
        default=True, metadata={"help": "A bare + in a query is read as a space, as most servers do."}
    )
    fuzzy_matching: bool = field(
        default=False,
        metadata={"help": "A name filter without exactMatch finds substrings; otherwise it finds nothing."},
    )
    rate_limit: float | None = field(
        default=None, metadata={"help": "Requests a second before 429 is answered; none: no limit."}
    )
    retry_after_format: Literal["seconds", "http_date", "none"] = field(
        default="seconds", metadata={"help": "How Retry-After is written, or that it is left out."}
    )
    error_format: Literal["errors", "message", "text"] = field(
        default="errors", metadata={"help": "Body of an error: JSON errors, JSON message, or plain text."}
    )
    token_lifetime: float = field(default=3600.0, metadata={"help": "Seconds that a fetched token is accepted."})
    tenant_id: str = field(default="TEN1", metadata={"help": "The tenant that tokens belong to; '' names none."})
    tenant_claim: bool = field(
        default=False, metadata={"help": "Fetched tokens are JSON Web Tokens with the tenant in their claims."}
    )
    extra_fields: bool = field(
        default=False, metadata={"help": "Some sessions carry unknown fields and unknown enum values."}
    )
    unlisted: list[str] = field(
        default_factory=list, metadata={"help": "An id that the listing leaves out although its session exists."}
    )
    broken_items: list[Any] = field(
        default_factory=list, metadata={"help": "A raw JSON item that is mixed into the first page of the listing."}
    )
