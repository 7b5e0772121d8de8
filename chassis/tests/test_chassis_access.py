"""Who asks: checked by the keys that `auth` publishes."""

import socket

import pytest
from flip_chassis.access import SigningKeys, published_at
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Behind
from flip_chassis.testing import People
from flip_contracts.base import UserId


async def test_while_auth_is_away_a_token_is_not_judged_and_the_caller_told_to_ask_again():
    people, user = People(), UserId(uuid7())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/keys"
    with pytest.raises(Behind) as refused:
        await SigningKeys(published_at(nobody)).claims(people.token(user))
    assert (refused.value.status, refused.value.facts) == (503, {"retry_after_s": 1})
    with people.published() as there:
        assert (await SigningKeys(published_at(there)).claims(people.token(user))).user_id == user
