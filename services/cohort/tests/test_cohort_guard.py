"""What the guard lets through is a plain read of OMOP; all else is refused with a code that names it."""

import contextlib
import logging
import re

import pytest
import sqlglot
from flip_chassis.refusal import Invalid
from flip_cohort.guard import IMAGES_NEED_ACCESSION, MAX_CHARACTERS, admit
from flip_cohort.omop import COLUMNS
from hypothesis import given, settings
from hypothesis import strategies as st
from omop_cdm.regular.cdm54 import Base
from sqlglot import exp

from .queries import HONEST, HOSTILE, IMAGING, RESTRICTED


@pytest.mark.requirement("COHORT-3")
@pytest.mark.parametrize("query", HONEST)
def test_an_honest_query_passes_and_reads_only_omop(query: str):
    admitted = admit(query, imaging=False)
    assert "person_id" in admitted.columns
    (tree,) = sqlglot.parse(admitted.sql, read="postgres")
    assert tree is not None
    named = {cte.alias for cte in tree.find_all(exp.CTE)}
    assert all(table.db == "omop" or table.name in named for table in tree.find_all(exp.Table))


@pytest.mark.requirement("COHORT-3")
@pytest.mark.parametrize(("query", "code"), HOSTILE.items(), ids=lambda v: re.sub(r"\W+", "-", v)[:60])
def test_a_hostile_query_is_refused_by_its_code(query: str, code: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG), pytest.raises(Invalid) as refused:
        admit(query, imaging=False)
    assert refused.value.code == code, refused.value
    assert not caplog.records, "nothing of the text may reach a log"


@pytest.mark.requirement("COHORT-2")
@pytest.mark.parametrize(("query", "word"), RESTRICTED.items())
def test_a_restricted_word_is_named(query: str, word: str):
    with pytest.raises(Invalid) as refused:
        admit(query, imaging=False)
    assert (refused.value.code, refused.value.facts) == ("restricted-word", {"word": word})


@pytest.mark.requirement("COHORT-2")
@given(
    word=st.sampled_from(["drop table", "alter user", "create table", "substring(", "drop role"]),
    place=st.sampled_from(["'{}'", "/* {} */ 1", "-- {}\n 1"]),
)
def test_a_restricted_word_in_a_literal_or_comment_is_only_text(word: str, place: str):
    admit(f"select person_id, {place.format(word)} from person", imaging=False)


@pytest.mark.requirement("COHORT-2")
@given(before=st.sampled_from(["", "my_", "x"]), after=st.sampled_from(["", "_n", "s"]))
def test_a_longer_name_is_not_a_restricted_word(before: str, after: str):
    name = f"{before}substring{after}"
    assert admit(f"select person_id, year_of_birth as {name} from person", imaging=False).columns[-1] == name


@pytest.mark.requirement("COHORT-4")
@pytest.mark.parametrize("query", IMAGING)
def test_a_project_with_images_may_select_accession_id(query: str):
    assert "accession_id" in admit(query, imaging=True).columns


@pytest.mark.requirement("COHORT-4")
def test_a_project_with_images_must_select_accession_id_and_is_told_why():
    with pytest.raises(Invalid) as refused:
        admit("select person_id, modality from radiology_occurrence", imaging=True)
    assert refused.value.code == "accession-id-missing"
    assert refused.value.detail == IMAGES_NEED_ACCESSION


def test_what_is_written_anew_is_admitted_unchanged():
    for query in HONEST:
        once = admit(query, imaging=False)
        assert admit(once.sql, imaging=False) == once


def test_comments_are_not_kept():
    assert "secret" not in admit("select person_id /* secret */ from person -- secret", imaging=False).sql


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_a_literal_stays_one_literal_whatever_it_holds(text: str):
    literal = "'" + text.replace("'", "''") + "'"
    sql = admit(f"select person_id from person where gender_source_value = {literal}", imaging=False).sql
    assert sql == f'SELECT "person_id" FROM "omop"."person" WHERE "gender_source_value" = {literal}'


_WORDS = """select person_id from omop.person where ( ) ; , union with a as drop table pg_sleep(1) 'x' " $$ -- /* */
    E'\\'' pg_catalog.pg_class = 42 in exists limit for update into :x $1 || case when then end
    omop.note accession_id *"""


@settings(max_examples=400)
@given(pieces=st.lists(st.sampled_from(_WORDS.split()), max_size=25))
def test_any_text_is_admitted_as_a_plain_read_or_refused(pieces: list[str]):
    try:
        admitted = admit(" ".join(pieces), imaging=False)
    except Invalid:
        return
    (tree,) = sqlglot.parse(admitted.sql, read="postgres")
    assert isinstance(tree, exp.Query)
    assert not list(tree.find_all(exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Into, exp.Lock, exp.Anonymous))
    assert admitted.columns.count("person_id") == 1


@given(st.text(max_size=200))
def test_no_text_brings_the_guard_down(text: str):
    with contextlib.suppress(Invalid):
        admit(text, imaging=True)


def test_a_text_of_the_longest_length_is_judged():
    query = "select person_id from person where year_of_birth in ("
    query += ",".join("1950" for _ in range((MAX_CHARACTERS - len(query) - 1) // 5)) + ")"
    assert admit(query, imaging=False).columns == ("person_id",)
    with pytest.raises(Invalid, match="query-too-long"):
        admit(query + " " * 10, imaging=False)


def test_the_columns_are_those_of_the_cdm():
    cdm = {table.name: {column.name for column in table.columns} for table in Base.metadata.tables.values()}
    for table, columns in COLUMNS.items():
        assert set(columns) <= cdm.get(table, set(columns)), table
    assert not {"note", "note_nlp", "location", "provider"} & COLUMNS.keys()
    assert "person_source_value" not in COLUMNS["person"]
