"""Cohort queries over the synthetic OMOP databases, with what they find at KCH and at UCLH alike.

A cohort query is one SELECT that returns `person_id`; a project with images also needs `accession_id`. Any further
column is a category that the researcher wants to see the distribution of.
"""

_SELECT = """\
SELECT person.person_id,
       scan.accession_id,
       gender.concept_name AS sex,
       person.year_of_birth,
       scan.modality,
       scan.manufacturer
FROM omop.person AS person
JOIN omop.radiology_occurrence AS scan ON scan.person_id = person.person_id
JOIN omop.concept AS gender ON gender.concept_id = person.gender_concept_id
"""

DEMO_QUERY = f"""{_SELECT}\
WHERE scan.modality = 'MR'
  AND scan.protocol_source_value = 'MR HEAD T1 3D'
  AND scan.radiology_occurrence_date BETWEEN DATE '2024-01-01' AND DATE '2024-12-31'
  AND person.year_of_birth <= 2005
"""
"""The 12 training persons: adults with a T1 head scan in 2024. The held-out persons were scanned in 2025."""

LARGE_QUERY = f"""{_SELECT}\
WHERE scan.modality = 'CT'
  AND scan.protocol_source_value = 'CT HEAD'
"""
"""64 persons with a CT of the head; the PACS does not hold these studies, so that each import of them fails."""

SMALL_QUERY = f"""{_SELECT}\
WHERE scan.modality = 'MR'
  AND scan.protocol_source_value = 'MR HEAD T1 3D'
  AND scan.radiology_occurrence_date BETWEEN DATE '2024-01-01' AND DATE '2024-12-31'
  AND person.year_of_birth > 2005
"""
"""6 persons: the children among 2024's T1 head scans, fewer than the disclosure threshold of 10."""

EMPTY_QUERY = f"""{_SELECT}\
WHERE scan.modality = 'PT'
"""
"""Nobody: no Trust has a PET scanner."""
