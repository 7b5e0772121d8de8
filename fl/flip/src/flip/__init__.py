"""What a researcher's app sees of FLIP: the frozen cohort, its images by accession id, and a way for metrics.

    from flip import FLIP

    flip = FLIP()
    for accession_id in flip.get_dataframe(project_id, query)["accession_id"]:
        folder = flip.get_by_accession_number(project_id, accession_id)

The same code runs at a Trust and, with `LOCAL_DEV` set, on the researcher's own machine.
"""

from flip.app import FLIP, HubOnly
from flip.data import ProjectData, QueryDiffers, ResourceMissing, StudyUnknown

__all__ = ["FLIP", "HubOnly", "ProjectData", "QueryDiffers", "ResourceMissing", "StudyUnknown"]
