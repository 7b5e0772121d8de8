"""Keyed pseudonyms (HMAC-SHA-256, RFC 2104). One key a Trust and project: a study in two projects can't be linked."""

import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

LONGEST_SHIFT_DAYS = 365
REGISTERED_UID_ROOT = "1.2.840.10008."
SHORTEST_TRUST_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """Maps the identifiers of one project at one Trust; the same identifier always maps to the same pseudonym."""

    secret: bytes

    @classmethod
    def derive(cls, trust_key: bytes, project_id: UUID) -> "ProjectKey":
        """The key of a project at the Trust that owns `trust_key`. Raises ValueError if that is under 32 bytes."""
        if len(trust_key) < SHORTEST_TRUST_KEY_BYTES:
            raise ValueError(f"the Trust's de-identification key has {len(trust_key)} bytes; 32 are needed")
        return cls(hmac.digest(trust_key, b"project\x1f" + project_id.bytes, hashlib.sha256))

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.digest(self.secret, f"{purpose}\x1f{value}".encode(), hashlib.sha256)

    def patient(self, patient_id: str) -> str:
        """The pseudonymous PatientID: `P` and 60 bits in hexadecimal, 16 characters."""
        return "P" + self._digest("patient", patient_id).hex()[:15].upper()

    def case(self, accession_number: str) -> str:
        """The name of the study in files and in the archive (AccessionNumber): `C` and 60 bits, 16 characters."""
        return "C" + self._digest("accession", accession_number).hex()[:15].upper()

    def dataset_case(self, name: str) -> str:
        """The name of a ready data set's case in files: `D` and 60 bits, 16 characters."""
        return "D" + self._digest("dataset-case", name).hex()[:15].upper()

    def study_id(self, accession_number: str) -> UUID:
        """The id of the study in this service's own events: 128 bits of the digest."""
        return UUID(bytes=self._digest("study", accession_number)[:16])

    def uid(self, uid: str) -> str:
        """A UID under 2.25 (PS3.5 B.2) with 128 bits of the digest. UIDs that DICOM itself registers stay."""
        if uid.startswith(REGISTERED_UID_ROOT):
            return uid
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"

    def days_back(self, patient_id: str) -> int:
        """By how many days, 1 to 365, every date of this patient moves into the past: intervals stay."""
        return 1 + int.from_bytes(self._digest("days", patient_id)[:8], "big") % LONGEST_SHIFT_DAYS
