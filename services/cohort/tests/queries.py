"""Cohort queries that people write, and queries that nobody should get through."""

HONEST: tuple[str, ...] = (
    "select person_id from omop.person",
    "SELECT * FROM omop.radiology_occurrence",
    """select p.person_id, r.accession_id from person p join omop.radiology_occurrence r using (person_id)
       where r.modality = 'MR'""",
    """select p.person_id, r.accession_id, r.modality, p.gender_concept_id
       from person p join omop.radiology_occurrence r on r.person_id = p.person_id
       where extract(year from age(r.radiology_occurrence_date, make_date(p.year_of_birth, 1, 1))) between 18 and 80""",
    """with cases as (
         select distinct person_id from condition_occurrence
         where condition_concept_id in (
           select descendant_concept_id from concept_ancestor where ancestor_concept_id = 321588))
       select c.person_id, r.accession_id from cases c join radiology_occurrence r on r.person_id = c.person_id""",
    "select person_id from condition_occurrence union select person_id from death",
    "select person_id, count(*) as n from visit_occurrence group by person_id having count(*) > 3 order by n desc",
    """select person_id from (
         select person_id, row_number() over (partition by person_id order by condition_start_date) as rn
         from condition_occurrence) q where rn = 1""",
    """select distinct on (person_id) person_id, accession_id from radiology_occurrence
       order by person_id, radiology_occurrence_date desc limit 500""",
    "select person_id from person p where exists (select 1 from death d where d.person_id = p.person_id)",
    "select person_id from person where person_id not in (select person_id from death)",
    "select * from (select person_id, accession_id, manufacturer from radiology_occurrence where modality = 'CT') x;",
    "with a as (select * from person), b as (select person_id from a where year_of_birth < 1950) select * from b",
    "select p.person_id, (select count(*) from death d where d.person_id = p.person_id) n from person p",
    "(select person_id from person) except (select person_id from death)",
    "select omop.person.person_id from omop.person where gender_concept_id = 8507",
    "select p.person_id from person p cross join (values (1), (2)) as t(n) where p.year_of_birth > 1900 + t.n",
    "select person_id, count(distinct visit_occurrence_id) c from visit_occurrence group by 1",
    """select person_id from measurement where value_as_number::numeric > 1.5
       and measurement_date >= date '2020-01-01' and measurement_date < current_date - interval '30 days'""",
    """select person_id from observation o left join concept c on c.concept_id = o.observation_concept_id
       where c.concept_name ilike '%smok%' or c.concept_name ~* 'tobacco'""",
    "-- my cohort\nselect /* x */ person_id from person where year_of_birth = (select max(year_of_birth) from person)",
    "select person_id, case when year_of_birth < 1950 then 'old' else 'young' end as agegroup from person",
    "select p.person_id, 'drop table x' as t from person p",
    "select person_id, 'drop' role from person",
    "select person_id from person where gender_source_value = 'substring(alter user)' -- create table",
    "select person_id, year_of_birth as substring, month_of_birth as drop_table from person",
    "select person_id from drug_exposure where quantity % 2 = 0 and days_supply is not null and not (refills <> 3)",
    """select a.person_id from condition_era a join drug_era b on a.person_id = b.person_id
       and b.drug_era_start_date > a.condition_era_start_date - interval '1 year'""",
    "SELECT PERSON_ID FROM OMOP.PERSON WHERE Race_Concept_Id IS DISTINCT FROM 0",
    "select person_id, lower(trim(gender_source_value)) || '-' || race_source_value as mix from person",
    """select person_id from measurement group by person_id
       having percentile_cont(0.5) within group (order by value_as_number) > 3""",
    """select person_id from measurement group by person_id
       having avg(value_as_number) filter (where unit_concept_id = 8840) > 3""",
    """select person_id from (
         select person_id, rank() over (partition by person_id order by visit_start_date, visit_occurrence_id) as nth
         from visit_occurrence) v where nth = 2 order by person_id""",
    "select person_id, year_of_birth from person group by (person_id, year_of_birth)",
    "select person_id from visit_occurrence where date_trunc('month', visit_start_date) = '2024-01-01'",
)

IMAGING: tuple[str, ...] = tuple(q for q in HONEST if "accession_id" in q or ("*" in q and "radiology" in q))

RESTRICTED: dict[str, str] = {
    "drop table omop.person": "drop table",
    "DROP /* quietly */ TABLE omop.person": "drop table",
    "select person_id from person; drop\n\ttable person": "drop table",
    "drop user flip": "drop user",
    "drop role flip": "drop role",
    "drop database omop": "drop database",
    "alter user flip superuser": "alter user",
    "alter table omop.person add x int": "alter table",
    "alter database omop set x = 1": "alter database",
    "create table x as select person_id from person": "create table",
    "with x as (create table y (a int)) select person_id from person": "create table",
    "select person_id, substring(gender_source_value, 1, 1) from person": "substring",
    "select person_id from person where SubString (gender_source_value from 1 for 1) = 'F'": "substring",
    "select person_id, pg_catalog.substring(gender_source_value, 1) from person": "substring",
    'select person_id, "substring"(gender_source_value, 1) from person': "substring",
}

_P = "from omop.person"
HOSTILE: dict[str, str] = {
    # nothing, or not one SELECT
    "": "query-empty",
    "   \n -- nothing\n": "query-empty",
    ";": "query-empty",
    "selekt person_id": "not-one-select",
    f"select person_id {_P}; select person_id {_P}": "not-one-select",
    f"select person_id {_P};; delete {_P}": "not-one-select",
    f"delete {_P}": "not-one-select",
    "update omop.person set year_of_birth = 0": "not-one-select",
    "insert into omop.person(person_id) values (1)": "not-one-select",
    "merge into omop.person using omop.death on true when matched then delete": "not-one-select",
    "truncate omop.person": "not-one-select",
    "table omop.person": "not-one-select",
    "values (1)": "not-one-select",
    "copy omop.person to program 'curl example.org'": "not-one-select",
    "explain analyze select 1": "not-one-select",
    "vacuum": "not-one-select",
    "set role postgres": "not-one-select",
    "begin": "not-one-select",
    "do $$ begin perform 1; end $$": "not-one-select",
    "call x()": "not-one-select",
    "grant all on omop.person to public": "not-one-select",
    "listen x": "not-one-select",
    "lock omop.person": "not-one-select",
    "create view x as select 1": "not-one-select",
    "drop view x": "not-one-select",
    "prepare x as select 1": "not-one-select",
    # writing and locking inside a SELECT
    f"select person_id into x {_P}": "construct-not-allowed",
    f"select person_id {_P} for update": "construct-not-allowed",
    f"select person_id {_P} for share nowait": "construct-not-allowed",
    "with x as (delete from omop.person returning person_id) select person_id from x": "construct-not-allowed",
    "with x as (update omop.person set year_of_birth = 1 returning person_id) select person_id from x": (
        "construct-not-allowed"
    ),
    "with x as (insert into omop.death select * from omop.death returning person_id) select person_id from x": (
        "construct-not-allowed"
    ),
    "with recursive x as (select person_id from person union all select person_id from x) select person_id from x": (
        "construct-not-allowed"
    ),
    # functions
    f"select person_id, pg_sleep(100) {_P}": "function-not-allowed",
    f"select person_id {_P} where pg_sleep(1) is null": "function-not-allowed",
    f"select person_id, pg_read_file('/etc/passwd') {_P}": "function-not-allowed",
    f"select person_id, lo_import('/etc/passwd') {_P}": "function-not-allowed",
    f"select person_id, dblink('host=x', 'select 1') {_P}": "function-not-allowed",
    f"select person_id, set_config('role', 'postgres', false) {_P}": "function-not-allowed",
    f"select person_id, current_setting('data_directory') {_P}": "function-not-allowed",
    f"select person_id, query_to_xml('select 1', true, true, '') {_P}": "function-not-allowed",
    f"select person_id, nextval('s') {_P}": "function-not-allowed",
    f"select person_id, pg_advisory_lock(1) {_P}": "function-not-allowed",
    f"select person_id, pg_terminate_backend(1) {_P}": "function-not-allowed",
    f"select person_id, version() {_P}": "function-not-allowed",
    f"select person_id, random() {_P}": "function-not-allowed",
    f"select person_id, repeat('x', 1000000000) {_P}": "function-not-allowed",
    f"select person_id, lpad('x', 1000000000) {_P}": "function-not-allowed",
    f"select person_id, substr(gender_source_value, 1) {_P}": "function-not-allowed",
    f"select person_id, left(gender_source_value, 1) {_P}": "function-not-allowed",
    f"select person_id, string_agg(gender_source_value, ',') {_P} group by 1": "function-not-allowed",
    f"select person_id, array_agg(year_of_birth) {_P} group by 1": "function-not-allowed",
    f"select person_id, current_user {_P}": "function-not-allowed",
    f"select person_id, session_user {_P}": "function-not-allowed",
    f"select person_id, generate_series(1, 1000000000) {_P}": "function-not-allowed",
    f"select person_id, unnest(array[1, 2]) {_P}": "function-not-allowed",
    f"select person_id, row_to_json(person) {_P}": "function-not-allowed",
    f'select person_id, "pg_sleep"(1) {_P}': "function-not-allowed",
    f"select person_id, pg_catalog.pg_sleep(1) {_P}": "construct-not-allowed",
    f"select person_id, omop.person.pg_typeof {_P}": "column-not-offered",
    f"select person_id, person.row_to_json {_P}": "column-not-offered",
    f"select person_id, (person).row_to_json {_P}": "construct-not-allowed",
    f"select person_id, person {_P}": "column-not-offered",
    f"select person_id {_P} as p where p::text like '(42,%'": "column-not-offered",
    "select p.person_id from person p join death d on d.person_id = p.person_id and d::text like '%x%'": (
        "column-not-offered"
    ),
    "select x.person_id from (select person_id, year_of_birth from person) x where x::text = '(1,1)'": (
        "column-not-offered"
    ),
    f"select person_id, count(person) {_P} group by 1": "column-not-offered",
    # where rows come from
    "select person_id from generate_series(1, 10) person_id": "function-not-allowed",
    "select person_id from rows from (generate_series(1, 3)) as t": "construct-not-allowed",
    "select person_id from only omop.person": "construct-not-allowed",
    "select person_id from omop.person tablesample system (1)": "construct-not-allowed",
    "select person_id from person p, lateral (select 1) x": "construct-not-allowed",
    "select person_id from dblink('x', 'y') as t(person_id int)": "function-not-allowed",
    "select oid as person_id from pg_class": "table-not-allowed",
    "select person_id from pg_catalog.pg_authid": "schema-not-allowed",
    "select person_id from information_schema.tables": "schema-not-allowed",
    "select person_id from public.person": "schema-not-allowed",
    "select person_id from other.omop.person": "schema-not-allowed",
    "select person_id from omop.note": "table-not-allowed",
    "select person_id from omop.location": "table-not-allowed",
    'select person_id from "omop.person"': "construct-not-allowed",
    'select person_id from "Person"': "table-not-allowed",
    "with pg_user as (select * from pg_user) select person_id from person": "table-not-allowed",
    "with a as (select * from b), b as (select person_id from person) select person_id from a": "table-not-allowed",
    "with person as (select person_id from death) select person_id from person": "table-not-allowed",
    "select person_id from person where exists (with pg_roles as (select 1 as a) select a from pg_roles)": (
        "construct-not-allowed"
    ),
    "with a as (select person_id from person) select person_id from a natural join person": "construct-not-allowed",
    # columns and types
    f"select person_id, ctid {_P}": "column-not-offered",
    f"select person_id, tableoid::regclass {_P}": "construct-not-allowed",
    f"select person_id, xmin {_P}": "column-not-offered",
    f"select person_id, person_source_value {_P}": "column-not-offered",
    f"select person_id, 'x'::xml {_P}": "type-not-allowed",
    f"select person_id, 'pg_authid'::regclass {_P}": "construct-not-allowed",
    f"select person_id, year_of_birth::omop.person {_P}": "construct-not-allowed",
    # text that isn't what it seems
    f"select person_id, $1 {_P}": "construct-not-allowed",
    f"select person_id, :x {_P}": "construct-not-allowed",
    f"select person_id, E'\\'' {_P}": "construct-not-allowed",
    f"select person_id, U&'\\0061' {_P}": "construct-not-allowed",
    f"select person_id, x'1f' {_P}": "construct-not-allowed",
    f"select person_id, $$quoted$$ {_P}": "construct-not-allowed",
    f"select person_id, $tag$quoted$tag$ {_P}": "construct-not-allowed",
    f"select person_id, 'open {_P}": "query-unparsable",
    f"select person_id, 1 /* open {_P}": "query-unparsable",
    f"select person_id, 'a\x00b' {_P}": "query-unparsable",
    f"select person_id {_P} where": "query-unparsable",
    f"select person_id {_P} limit (select 1)": "construct-not-allowed",
    f"select person_id, array[1, 2] {_P}": "function-not-allowed",
    f"select person_id {_P} where year_of_birth operator(pg_catalog.=) 1": "construct-not-allowed",
    f'select person_id, gender_source_value collate "C" {_P}': "function-not-allowed",
    f"select person_id, 99999999999999999999 {_P}": "construct-not-allowed",
    # too much
    "select person_id, " + "(" * 200 + "1" + ")" * 200 + f" {_P}": "query-too-complex",
    "select person_id, " + "not " * 4900 + f"true {_P}": "query-too-complex",
    "select person_id, " + "- " * 4900 + f"1 {_P}": "query-too-complex",
    "select person_id, 1" + " + 1" * 4500 + f" {_P}": "query-too-complex",
    "select person_id, 'a'" + " || 'a'" * 20 + f" {_P}": "query-too-complex",
    f"select person_id {_P} -- " + "x" * 30_000: "query-too-long",
    # persons that are none, and one person alone
    f"select year_of_birth as person_id {_P}": "identifier-misused",
    f"select person_id * 10 + 1 as person_id {_P}": "identifier-misused",
    f"select coalesce(person_id, 1) as person_id {_P}": "identifier-misused",
    f"select person_id {_P} where person_id = 42": "identifier-misused",
    f"select person_id {_P} where 42 = (person_id)": "identifier-misused",
    f"select person_id {_P} where person_id in (1, 2)": "identifier-misused",
    f"select person_id {_P} where person_id between 1 and 9": "identifier-misused",
    f"select person_id {_P} where person_id < 42": "identifier-misused",
    f"select person_id {_P} where person_id is distinct from 42": "identifier-misused",
    f"select person_id {_P} where person_id::text like '4%'": "identifier-misused",
    f"select person_id {_P} where (person_id, year_of_birth) = (42, 1950)": "identifier-misused",
    f"select person_id {_P} where (person_id, year_of_birth) in ((42, 1950))": "identifier-misused",
    f"select person_id {_P} where abs(person_id) = 42": "identifier-misused",
    f"select person_id {_P} where 42 in (select person_id from omop.person)": "identifier-misused",
    f"select person_id {_P} where person_id in (select year_of_birth from omop.person)": "identifier-misused",
    f"select person_id {_P} where person_id in (values (42))": "identifier-misused",
    f"select person_id {_P} where 42 = (select person_id from omop.death limit 1)": "identifier-misused",
    f"select person_id {_P} where 42 in (select person_id from omop.person union select person_id from omop.death)": (
        "identifier-misused"
    ),
    f"select person_id {_P} where person_id in (select person_id from omop.death union select 42)": (
        "identifier-misused"
    ),
    f"select person_id {_P} where year_of_birth in (select * from (select person_id from omop.death) d)": (
        "construct-not-allowed"
    ),
    "select person_id from (select person_id as pid, person_id from omop.person) x where pid = 42": (
        "identifier-misused"
    ),
    "select person_id from omop.person join (values (42)) as v(person_id) using (person_id)": "identifier-misused",
    "with x(pid) as (select person_id from omop.person) select pid from x": "construct-not-allowed",
    f"select person_id {_P} union select year_of_birth {_P}": "identifier-misused",
    f"select person_id {_P} union select 42": "identifier-misused",
    f"select person_id, gender_concept_id {_P} union select person_id, year_of_birth {_P}": "identifier-misused",
    f"select person_id {_P} union select person_id, year_of_birth {_P}": "construct-not-allowed",
    "select max(person_id) as person_id from omop.person": "identifier-misused",
    "select person_id from visit_occurrence where visit_occurrence_id = 7": "identifier-misused",
    "select person_id from radiology_occurrence where accession_id = 'A1'": "identifier-misused",
    "select person_id, year_of_birth as gender_concept_id from omop.person": "identifier-misused",
    f"select person_id, row_number() over (order by person_id * 2) {_P}": "identifier-misused",
    f"select person_id {_P} group by 1 having max(distinct person_id) = 42": "identifier-misused",
    f"select person_id {_P} group by 1 having max(person_id) = 42": "identifier-misused",
    f"select person_id {_P} group by 1 having percentile_disc(0) within group (order by person_id) = 42": (
        "identifier-misused"
    ),
    f"select person_id, lag(person_id) over (order by year_of_birth) as l {_P}": "identifier-misused",
    f"select person_id {_P} where case person_id when 42 then true end": "identifier-misused",
    f"select person_id {_P} where greatest(person_id, 1) = 42": "identifier-misused",
    "select p.person_id from person p, lateral (values (p.person_id)) v(x) where x = 42": "construct-not-allowed",
    f"select count(*) {_P}": "person-id-missing",
    "select a.person_id, b.person_id from person a, person b": "person-id-missing",
}
