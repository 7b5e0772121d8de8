"""Reads the text as words: how much of it there may be, and which words may not stand in it (COHORT-2)."""

import re
from collections.abc import Sequence
from itertools import pairwise

import sqlglot
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from flip_cohort.guard.refusal import allow, refuse

DIALECT = "postgres"
MAX_CHARACTERS = 20_000
_MAX_NESTING = 24

RESTRICTED_STATEMENTS = frozenset(
    {("alter", what) for what in ("user", "table", "database")}
    | {("drop", what) for what in ("table", "user", "role", "database")}
    | {("create", "table")}
)
RESTRICTED_FUNCTIONS = frozenset({"substring"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LITERALS = frozenset(
    {
        TokenType.STRING,
        TokenType.NATIONAL_STRING,
        TokenType.RAW_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.UNICODE_STRING,
        TokenType.BYTE_STRING,
        TokenType.BIT_STRING,
        TokenType.HEX_STRING,
    }
)


def tokens_of(text: str) -> list[Token]:
    """The words of the text, without comments."""
    allow(bool(text.strip()), "query-empty", "Write a SELECT.")
    allow(
        len(text) <= MAX_CHARACTERS,
        "query-too-long",
        f"A query has at most {MAX_CHARACTERS} characters.",
        characters=len(text),
    )
    allow(not _CONTROL.search(text), "query-unparsable", "The text holds control characters.")
    try:
        return sqlglot.tokenize(text, read=DIALECT)
    except TokenError:
        refuse("query-unparsable", "A quotation mark, a comment or a number is not complete.")


def refuse_restricted_words(tokens: Sequence[Token]) -> None:
    """Tokens hold no comments; literals are tokens of their own; a longer name is another token."""
    for token, after in pairwise(tokens):
        if token.token_type in _LITERALS:
            continue
        word, following = token.text.lower(), after.text.lower()
        if word in RESTRICTED_FUNCTIONS and after.token_type is TokenType.L_PAREN:
            refuse("restricted-word", f"The function {word} may not be used.", word=word)
        quoted = TokenType.IDENTIFIER in (token.token_type, after.token_type) or after.token_type in _LITERALS
        if (word, following) in RESTRICTED_STATEMENTS and not quoted:
            refuse("restricted-word", f"The words {word} {following} may not be used.", word=f"{word} {following}")


def check_size(tokens: Sequence[Token]) -> None:
    """The parser recurses: what would nest too deep is refused by its tokens."""
    depth = 0
    for token in tokens:
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE):
            depth += 1
            allow(depth <= _MAX_NESTING, "query-too-complex", f"At most {_MAX_NESTING} levels may be nested.")
        elif token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END):
            depth -= 1
