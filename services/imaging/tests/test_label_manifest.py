"""The operator's manifest is hostile until parsed; a wrong one is refused with its line."""

from typing import Any

import pytest
from flip_chassis.testing import refused
from flip_imaging.labels import read_manifest

pytestmark = pytest.mark.requirement("IMG-6")

FILES = ("one.dcm", "two.nii.gz")


def test_a_manifest_names_the_file_of_each_accession_number() -> None:
    content = b'\xef\xbb\xbfaccession_id,file\r\nA1,one.dcm\r\n"A,2",two.nii.gz\r\n'
    assert read_manifest(content, FILES) == {"A1": "one.dcm", "A,2": "two.nii.gz"}


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"", {"line": 1}),
        (b"accession,file\nA1,one.dcm\n", {"line": 1}),
        (b"accession_id,file\nA1\n", {"line": 2}),
        (b"accession_id,file\nA1,\n", {"line": 2}),
        (b"accession_id,file\nA1,one.dcm\nA1,two.nii.gz\n", {"line": 3}),
        (b"accession_id,file\nA1,../../etc/passwd\n", {"line": 2, "file": "../../etc/passwd"}),
        (b"accession_id,file\n\xff\xfe,one.dcm\n", {"field": "manifest"}),
        (b'accession_id,file\n"A1,one.dcm\n', {"field": "manifest"}),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(content: bytes, facts: dict[str, Any]) -> None:
    with refused("manifest-not-valid", **facts):
        read_manifest(content, FILES)
