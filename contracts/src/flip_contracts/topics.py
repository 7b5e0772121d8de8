"""The topics of the bus, each with its owner, its key and who may read it. `audit` reads every one."""

from flip_contracts.base import HUB, HUB_SERVICES, Topic

USER = Topic(
    "flip.auth.user",
    key="user_id",
    owner="auth",
    readers=frozenset(HUB_SERVICES),
    description="Who may do what: users, their roles, their sessions.",
)
PROJECT = Topic(
    "flip.projects.project",
    key="project_id",
    owner="projects",
    readers=frozenset({"cohort", "imaging", "files", "scheduler", "trainer-node"}),
    description="Projects from draft to deletion, with each Trust's decision.",
)
MODEL = Topic(
    "flip.projects.model",
    key="model_id",
    owner="projects",
    readers=frozenset({"files", "scheduler"}),
    description="Models: what is to be trained in a project.",
)
QUERY = Topic(
    "flip.cohort.query",
    key="project_id",
    owner="cohort",
    readers=frozenset({"projects", "imaging", "scheduler"}),
    description="Cohort queries of a project: saved, answered by each Trust, frozen.",
)
IMAGING = Topic(
    "flip.imaging.project",
    key="project_id",
    owner="imaging",
    readers=frozenset({"projects", "scheduler"}),
    description="A project's images at each Trust: import, failures, labels.",
)
RESULT = Topic(
    "flip.files.result",
    key="run_id",
    owner="files",
    readers=frozenset({"scheduler"}),
    description="What runs leave: result bundles, scanned and published; their rounds; who downloaded which.",
)
MODEL_FILE = Topic(
    "flip.files.model",
    key="model_id",
    owner="files",
    readers=frozenset({"scheduler"}),
    description="The files of models: uploaded, then accepted or refused by their scan, removed.",
)
RUN = Topic(
    "flip.scheduler.run",
    key="run_id",
    owner="scheduler",
    readers=frozenset({"files", "imaging", "projects", "trainer-node"}),
    description="Runs: queued, assigned to a net, ended.",
)
SHARE = Topic(
    "flip.scheduler.share",
    key="project_id",
    owner="scheduler",
    description="What an admin lets each project have of the nets.",
)
NET_SERVICE = Topic(
    "flip.scheduler.net",
    key="net",
    owner="scheduler",
    description="Nets that an admin drains, those that take runs again, and those that are retired.",
)
NET = Topic(
    "flip.trainer-node.net",
    key="net",
    owner="trainer-node",
    readers=frozenset({"scheduler"}),
    description="Nets: free, busy, alive.",
)
TRAINING = Topic(
    "flip.trainer-node.run",
    key="run_id",
    owner="trainer-node",
    readers=frozenset({"files", "scheduler"}),
    description="What happens inside a run: prepared, planned, each round, its metrics, its results.",
)
LEDGER = Topic(
    "flip.audit.ledger",
    key="reader",
    owner="audit",
    description="Reads of the ledger.",
)
CHECKPOINT = Topic(
    "flip.audit.checkpoint",
    key="number",
    owner="audit",
    description="Signed statements over the ledger.",
)

OPERATION = Topic(
    "flip.operations",
    key="process",
    owner=HUB,
    description="What operators do to a service's record keeping: retries, discards, rebuilds, refills.",
)

COHORT_COMMANDS = Topic(
    "flip.trust.{trust}.commands",
    key="project_id",
    owner="cohort",
    description="What the hub asks of a Trust.",
)
IMAGING_COMMANDS = Topic("flip.trust.{trust}.commands", key="project_id", owner="imaging", description="")
TRAINING_COMMANDS = Topic("flip.trust.{trust}.commands", key="run_id", owner="trainer-node", description="")

COHORT_REPORTS = Topic(
    "flip.trust.{trust}.reports",
    key="project_id",
    owner="{trust}",
    readers=frozenset({"cohort"}),
    description="What a Trust answers.",
)
IMAGING_REPORTS = Topic(
    "flip.trust.{trust}.reports", key="project_id", owner="{trust}", readers=frozenset({"imaging"}), description=""
)
TRAINING_REPORTS = Topic(
    "flip.trust.{trust}.reports", key="run_id", owner="{trust}", readers=frozenset({"trainer-node"}), description=""
)
WORKER_REPORTS = Topic(
    "flip.trust.{trust}.reports", key="net", owner="{trust}", readers=frozenset({"trainer-node"}), description=""
)
OPERATION_REPORTS = Topic("flip.trust.{trust}.reports", key="process", owner="{trust}", description="")
