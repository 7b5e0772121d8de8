-- The imaging tables beside OMOP 5.4: R-CDM's (radiology_*) and MI-CDM's (image_*), the former with the columns that imaging cohorts ask for: accession_id (the study's key in the
-- PACS), modality, manufacturer, protocol_source_value. Concept 0 means "not mapped".
CREATE TABLE omop.radiology_occurrence (
    radiology_occurrence_id bigint PRIMARY KEY,
    person_id integer NOT NULL REFERENCES omop.person,
    radiology_occurrence_date date NOT NULL,
    radiology_occurrence_datetime timestamp,
    condition_occurrence_id integer REFERENCES omop.condition_occurrence,
    device_concept_id integer REFERENCES omop.concept,
    radiology_modality_concept_id integer NOT NULL REFERENCES omop.concept,
    person_orientation_concept_id integer REFERENCES omop.concept,
    radiology_protocol_concept_id integer REFERENCES omop.concept,
    image_total_count integer NOT NULL,
    image_type varchar(50),
    anatomic_site_concept_id integer REFERENCES omop.concept,
    radiology_comment varchar(1000),
    image_dosage_unit_concept_id integer REFERENCES omop.concept,
    dosage_value_as_number numeric,
    image_exposure_time_unit_concept_id integer REFERENCES omop.concept,
    image_exposure_time real,
    radiology_dirpath varchar(800),
    visit_occurrence_id integer REFERENCES omop.visit_occurrence,
    modality varchar(16) NOT NULL,
    manufacturer varchar(64),
    protocol_source_value varchar(100),
    count_of_series integer,
    accession_id varchar(16) NOT NULL UNIQUE
);
CREATE INDEX radiology_occurrence_person ON omop.radiology_occurrence (person_id);

CREATE TABLE omop.radiology_image (
    image_id bigint PRIMARY KEY,
    radiology_occurrence_id bigint NOT NULL REFERENCES omop.radiology_occurrence,
    person_id integer NOT NULL REFERENCES omop.person,
    person_orientation_concept_id integer REFERENCES omop.concept,
    image_type varchar(50),
    radiology_phase_concept_id integer REFERENCES omop.concept,
    image_no integer NOT NULL,
    phase_total_no integer,
    image_resolution_rows integer NOT NULL,
    image_resolution_columns integer NOT NULL,
    image_window_level_center varchar(50),
    image_window_level_width varchar(50),
    image_slice_thickness numeric,
    image_filepath varchar(500)
);
CREATE INDEX radiology_image_occurrence ON omop.radiology_image (radiology_occurrence_id);

CREATE TABLE omop.image_occurrence (
    image_occurrence_id integer PRIMARY KEY,
    person_id integer NOT NULL REFERENCES omop.person,
    procedure_occurrence_id integer NOT NULL REFERENCES omop.procedure_occurrence,
    visit_occurrence_id integer REFERENCES omop.visit_occurrence,
    anatomic_site_concept_id integer REFERENCES omop.concept,
    wadors_uri text,
    local_path text,
    image_occurrence_date date NOT NULL,
    image_study_uid varchar(64) NOT NULL,
    image_series_uid varchar(64) NOT NULL,
    modality_concept_id integer NOT NULL REFERENCES omop.concept
);
CREATE INDEX image_occurrence_person ON omop.image_occurrence (person_id);

CREATE TABLE omop.image_feature (
    image_feature_id integer PRIMARY KEY,
    person_id integer NOT NULL REFERENCES omop.person,
    image_occurrence_id integer NOT NULL REFERENCES omop.image_occurrence,
    image_feature_event_field_concept_id integer REFERENCES omop.concept,
    image_feature_event_id integer,
    image_feature_concept_id integer NOT NULL REFERENCES omop.concept,
    image_feature_type_concept_id integer NOT NULL REFERENCES omop.concept,
    image_finding_concept_id integer REFERENCES omop.concept,
    image_finding_id integer,
    anatomic_site_concept_id integer REFERENCES omop.concept,
    alg_system text,
    alg_datetime timestamp
);
CREATE INDEX image_feature_occurrence ON omop.image_feature (image_occurrence_id);
