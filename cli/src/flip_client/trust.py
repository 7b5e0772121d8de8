"""A Trust's own side, for its operator: bring labels or a ready data set, see how the import stands.

The address is inside the Trust; the hub can't be reached by it nor reach it.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from flip_client.problem import Problem, Unreachable


class TrustOperator:
    """A service at a Trust, as its operator."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(600, connect=10)
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def projects(self) -> Any:
        """The projects at this Trust with the state of their studies."""
        return self.ask("GET", "/api/imaging/trust/projects")

    def bring_labels(self, project_id: UUID | str, folder: Path, *, dry_run: bool = False) -> Any:
        """Bring the labels that `manifest.csv` (accession_id, file) in `folder` lists; answers the coverage report."""
        with ExitStack() as opened:
            manifest = opened.enter_context((folder / "manifest.csv").open("rb"))
            parts: list[tuple[str, Any]] = [("manifest", ("manifest.csv", manifest, "text/csv"))]
            parts.extend(
                ("files", (file.name, opened.enter_context(file.open("rb")), "application/octet-stream"))
                for file in sorted(folder.iterdir())
                if file.name != "manifest.csv"
            )
            path = f"/api/imaging/trust/projects/{project_id}/labels"
            return self.ask("POST", path, params={"dry_run": str(dry_run).lower()}, files=parts)

    def register_dataset(self, project_id: UUID | str, name: str, *, dry_run: bool = False) -> Any:
        """Let a ready nnU-Net data set of the Trust stand in for the project's studies; answers the report on it.

        Waits as long as the Trust needs to read all of it.
        """
        path, params = f"/api/imaging/trust/projects/{project_id}/dataset", {"dry_run": str(dry_run).lower()}
        return self.ask("POST", path, params=params, json={"name": name}, timeout=httpx.Timeout(None, connect=10))

    def withdraw_dataset(self, project_id: UUID | str) -> None:
        """Give the data set up: the project's studies count again."""
        self.ask("DELETE", f"/api/imaging/trust/projects/{project_id}/dataset")

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask the service, and have its answer, if it has one, parsed. Raises Problem and Unreachable."""
        try:
            response = self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise Unreachable(f"{self._http.base_url} gave no answer: {type(error).__name__}") from error
        if response.is_error:
            raise Problem.of(response)
        return response.json() if response.content else None
