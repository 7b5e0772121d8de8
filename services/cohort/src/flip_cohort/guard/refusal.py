"""How a query is refused."""

from typing import NoReturn

from flip_chassis.refusal import Invalid


def refuse(code: str, detail: str = "", **facts: object) -> NoReturn:
    """Refuse the query. `facts` name the word, function, table, column or place."""
    raise Invalid(code, detail, **facts)


def allow(condition: bool, code: str, detail: str = "", **facts: object) -> None:
    """Refuse the query unless `condition` holds."""
    if not condition:
        refuse(code, detail, **facts)
