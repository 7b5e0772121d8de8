"""Keeps identifiers identifiers: persons are chosen by what is recorded of them, and what is counted are persons.

The rules hold by names alone. A column called `person_id` is one wherever it stands, because no expression may take the
name, no column of that name may take another, and the parts of a set operation must have it in the same place.
"""

from collections.abc import Iterator

from sqlglot import exp

from flip_cohort.guard.refusal import allow
from flip_cohort.omop import IDENTIFIERS, is_categorical

_BY_RECORDS = "Persons are chosen by what is recorded of them, not by their identifiers."


def check_identifiers(query: exp.Query) -> None:
    """Refuse an identifier that is renamed, computed with or compared with anything but itself."""
    for alias in query.find_all(exp.Alias):
        _check_alias(alias)
    for columns in _alias_columns(query):
        allow(not _reserved(columns), "identifier-misused", _BY_RECORDS, column=columns)
    for column in query.find_all(exp.Column):
        if column.name in IDENTIFIERS:
            used = _is_plain(column)
            allow(used, "identifier-misused", _BY_RECORDS, column=column.name)
    for select in query.find_all(exp.Select):
        _check_operand(select)


def _reserved(name: str) -> bool:
    """Names that always mean the column of the OMOP table."""
    return name in IDENTIFIERS or is_categorical(name)


def _check_alias(alias: exp.Alias) -> None:
    source = alias.this.name if isinstance(alias.this, exp.Column) else None
    renames = source in IDENTIFIERS and alias.alias != source
    poses = _reserved(alias.alias) and alias.alias != source
    allow(not renames, "identifier-misused", "An identifier keeps its name.", column=source)
    allow(not poses, "identifier-misused", "This name stands for the column alone.", column=alias.alias)


def _alias_columns(query: exp.Query) -> Iterator[str]:
    for alias in query.find_all(exp.TableAlias):
        yield from (column.name for column in alias.args.get("columns") or [])


def _is_plain(column: exp.Column) -> bool:
    """Whether an identifier is only selected, joined to itself, counted, grouped or ordered by."""
    user, inner = _user(column)
    match user:
        case exp.Select() | exp.Alias() | exp.Group() | exp.Count() | exp.Is():
            plain = True
        case exp.EQ() | exp.NullSafeEQ():
            plain = column_name(user.left) == column_name(user.right) == column.name
        case exp.In():
            plain = inner is user.this and user.args.get("query") is not None
        case exp.Ordered(parent=order):
            plain = order is not None and not isinstance(order.parent, exp.WithinGroup)
        case exp.Distinct():
            plain = isinstance(user.parent, exp.Select | exp.Count)
        case exp.Tuple():
            plain = isinstance(user.parent, exp.Distinct | exp.Group)
        case exp.Window():
            plain = any(inner is part for part in user.args.get("partition_by") or [])
        case _:
            plain = False
    return plain


def _user(node: exp.Expr) -> tuple[exp.Expr | None, exp.Expr]:
    """The node that uses `node`, and what it sees of it, past parentheses."""
    while isinstance(node.parent, exp.Paren):
        node = node.parent
    return node.parent, node


def column_name(node: exp.Expr) -> str | None:
    """The name of the column that the node simply is."""
    bare = node.unnest()
    return bare.name if isinstance(bare, exp.Column) else None


def _check_operand(select: exp.Select) -> None:
    """A subquery used as a value may not be one of identifiers; behind IN it must give the identifier on the left."""
    place = select.parent
    while isinstance(place, exp.Subquery | exp.SetOperation | exp.Paren):
        if isinstance(place.parent, exp.From | exp.Join | exp.CTE | None):
            return
        place = place.parent
    if place is None or isinstance(place, exp.CTE | exp.Exists):
        return
    given = [column_name(e.unalias()) for e in select.expressions]
    wanted = column_name(place.this) if isinstance(place, exp.In) else None
    if wanted not in IDENTIFIERS:
        wanted = None
    stars = any(e.is_star and not isinstance(e, exp.Count) for e in select.expressions)
    allow(not stars, "construct-not-allowed", "Name the column of this subquery.", construct="star")
    if wanted is not None or any(name in IDENTIFIERS for name in given):
        allow(given == [wanted], "identifier-misused", _BY_RECORDS, column=wanted or given[0])


def check_set_operations(resolved: exp.Query) -> None:
    """The parts of a UNION agree by position: an identifier must meet itself there."""
    for operation in resolved.find_all(exp.SetOperation):
        left, right = operation.left.named_selects, operation.right.named_selects
        allow(len(left) == len(right), "construct-not-allowed", "The parts select as many columns.", construct="union")
        for one, other in zip(left, right, strict=True):
            agree = one == other or not {one, other} & (IDENTIFIERS | {c for c in (one, other) if is_categorical(c)})
            allow(agree, "identifier-misused", "The parts of a set operation must align.", column=one)
