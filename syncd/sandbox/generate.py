"""Sessions like those of an R&D lab: the same for the same seed, some hundred thousand per second."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from syncd.sandbox.session import Session, stamp

# Generated sessions are between these times, independently of the clock: a seed gives the same bytes at any date.
FIRST: Final = 1_704_700_800.0  # 2024-01-08
LAST: Final = 1_767_139_200.0  # 2025-12-31

USERS: Final = tuple(
    (f"USR{number}", name)
    for number, name in enumerate(
        (
            "Ada Okafor", "Beatriz Núñez", "Chen Wei", "Dagny Sørensen", "Emil Žák", "Fatima al-Sayed",
            "Georg Weiß", "Hana Suzuki", "Ivo Petrov", "Jun Park", "Kavya Iyer", "Léa Fournier",
            "Mats Lindqvist", "Nadia Haddad", "Oluwaseun Bello", "Piotr Wójcik", "Quynh Tran",
            "Rosa Marchetti", "Sam O'Neill", "Tomás Ferreira",
        ),
        start=1,
    )
)  # fmt: skip

_OPENINGS = (
    "Which {material} gives the best {property} in {product}?",
    "Why does {property} drop when {material} exceeds {share} %?",
    "Compare {material} and {other} for {product}",
    "Find a REACH-compliant substitute for {material} in {product}",
    "Summarise last month's {property} results for {product}",
    "{product}: {property} vs. {material} loading ({share} % w/w)",
    "Predict {property} at {share} °C for {product} with {material}",
    "What is the SDS hazard class of {material} / {other}?",
    "Plan a DoE: {material} × {other}, response {property}",
    "Übersicht: {property} von {product} mit {material}",
    "{product}の{property}と{material}の関係は？",
    "Supplier lead time for {material} – any risk for {product}? 🧪",
)
_MATERIALS = (
    "titanium dioxide", "fumed silica", "HDI trimer", "bio-based polyol", "zinc phosphate", "n-butyl acetate",
    "carbon black", "calcium carbonate (2 µm)", "dibutyltin dilaurate", "epoxy resin type 1",
    "cellulose nanofibres", "β-carotene", "sodium laureth sulfate", "PTFE wax", "graphene oxide",
    "IPDA hardener",
)  # fmt: skip
_PROPERTIES = (
    "gloss at 60°", "pot life", "viscosity", "scrub resistance", "ΔE after 500 h QUV", "Tg", "peel strength",
    "VOC content", "hiding power", "pH stability", "tensile modulus", "open time",
)  # fmt: skip
_PRODUCTS = (
    "the water-borne clear coat", "Primer 7.2", "the 2K floor coating", "the wood adhesive",
    "sealant batch B-114", "the shampoo base", "the battery binder", "the gravure ink",
    "the anti-fouling paint", "the hot-melt",
)  # fmt: skip


_AUTOMATIONS: Final = tuple(f"AUT{number}" for number in range(1, 10))
_AUDITS: Final = tuple(f'{{"by":"{by}","byName":"{by_name}","at":' for by, by_name in USERS)
FOLDERS: Final = tuple(f"FOL{number}" for number in range(1, 41))
_A_WEEK: Final = 7 * 24 * 3600


def generate(count: int, seed: int) -> Iterator[Session]:
    """Yield `count` sessions in the order of their creation, `SES1` first; each has about 400 bytes of JSON."""
    # A seed must always give the same sessions; nothing secret is drawn.
    rng = Random(seed)  # noqa: S311
    step = (LAST - FIRST) / max(count, 1)
    for number in range(1, count + 1):
        yield _session(number, FIRST + step * (number - 1), rng)


def _session(number: int, created_at: float, rng: Random) -> Session:
    """Format one session as JSON directly: a JSON encoder would take most of the time."""
    draw = rng.random
    name, source = _name(rng), _uuid(rng)
    user = int(draw() * draw() * len(USERS))  # some users have far more sessions than others
    spoke_at = stamp(min(created_at + draw() ** 4 * _A_WEEK, LAST))  # mostly within minutes
    folder = _pick(FOLDERS, draw()) if draw() < 0.6 else None  # noqa: PLR2004
    automation = _pick(_AUTOMATIONS, draw()) if draw() < 0.08 else None  # noqa: PLR2004
    status = "active" if draw() < 0.97 else "inactive"  # noqa: PLR2004
    kind = "automation" if automation else "chat"
    parent = f'"parentId":"{folder}",' if folder else ""
    run = f'"automationId":"{automation}","automationRunId":"RUN{number}",' if automation else ""
    text = (
        f'{{"id":"SES{number}","name":"{name}",{parent}"sourceSessionId":"{source}",'
        f'"lastMessageAt":"{spoke_at}","status":"{status}","kind":"{kind}",{run}'
        f'"Created":{_AUDITS[user]}"{stamp(created_at)}"}},"Updated":{_AUDITS[user]}"{spoke_at}"}}}}'
    )
    by = USERS[user][0]
    return Session(number, f"SES{number}", source, name, folder, kind, automation, by, by, spoke_at, text.encode())


def _name(rng: Random) -> str:
    draw = rng.random
    return _pick(_OPENINGS, draw()).format(
        material=_pick(_MATERIALS, draw()),
        other=_pick(_MATERIALS, draw()),
        property=_pick(_PROPERTIES, draw()),
        product=_pick(_PRODUCTS, draw()),
        share=int(draw() * 58) + 2,
    )


def _uuid(rng: Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    # Formatted directly: uuid.UUID takes three times as long.
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _pick(choices: Sequence[str], drawn: float) -> str:
    return choices[int(drawn * len(choices))]
