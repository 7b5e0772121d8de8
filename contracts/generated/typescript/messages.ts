// Bodies of the messages on the bus. Written by `flip-contracts generate`; change the contracts instead.

/**
 * What a start has to check of an app's configuration file: its problems, the Trusts that it gives a weight, and
 * the files that a Flower app's components are in.
 */
export interface AppConfiguration {
  readonly problems?: ReadonlyArray<ConfigurationProblem>;
  readonly aggregation_weights?: Readonly<Record<string, number>>;
  readonly client_file?: string | null;
  readonly server_file?: string | null;
}

/** Rounds of one attempt. */
export interface AttemptRounds {
  readonly attempt: number;
  readonly rounds: ReadonlyArray<number>;
}

/** The global weights that scored best so far, as `flip_nnunet.standing` judges rounds. */
export interface BestRound {
  readonly round: number;
  readonly object: string;
  readonly digest: string;
  readonly score: number;
}

/**
 * The global weights after a round, as kept in the object store, and how the run stands after it.
 *
 * `digest` is over the tensors (name, type, shape, bytes), as `flip_nnunet.message.weights_digest` makes it.
 */
export interface Checkpoint {
  readonly round: number;
  readonly object: string;
  readonly digest: string;
  readonly score?: number | null;
  readonly best?: BestRound | null;
}

/** What is wrong in a configuration file: the field as it is written there, and why it can't be used. */
export interface ConfigurationProblem {
  readonly field: string;
  readonly detail: string;
}

/** An earlier run that another one goes on from, and the weights of it with which that one begins. */
export interface Continued {
  readonly run_id: string;
  readonly checkpoint: Checkpoint;
}

/**
 * A place where the Trusts' records of schema, plan or model differ, and each Trust's value there, as JSON.
 *
 * Both are shortened to what is safe to show; no record holds values of single cases.
 */
export interface Difference {
  readonly path: string;
  readonly values: Readonly<Record<string, string>>;
}

/** The results of a finished run whose model a prediction uses, by the digest of their zip. */
export interface EarlierResults {
  readonly run_id: string;
  readonly digest: string;
}

/** A call in Python source that a Trust may want to look at; it refuses nothing. */
export interface Finding {
  readonly line: number;
  readonly name: string;
}

/** What a run asks of each Trust that takes part, or what a net has for it at one. Memory in MiB; of a GPU, each. */
export interface Resources {
  readonly gpus?: number;
  readonly gpu_memory_mib?: number;
  readonly memory_mib?: number;
}

/** Studies of a project at one Trust by state, each as it may leave the Trust. */
export interface StudyCounts {
  readonly queued?: number | "suppressed";
  readonly importing?: number | "suppressed";
  readonly imported?: number | "suppressed";
  readonly failed?: number | "suppressed";
  readonly capped?: number | "suppressed";
}

/** An approving Trust withdrew: its data are no longer used. */
export interface ApprovalWithdrawnV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly reason: string;
}

/**
 * The attempt ended without a result: stopped, broken (it may be tried again), or wrong in itself (it may not).
 *
 * `differences` has the first of them where it failed because the Trusts' records differ.
 */
export interface AttemptEndedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly fencing: number;
  readonly outcome: "stopped" | "interrupted" | "failed" | (string & {});
  readonly reason: string;
  readonly detail?: string;
  readonly differences?: ReadonlyArray<Difference>;
}

/** At the hub. */
export interface BrokerRefilledV1 {
  readonly process: string;
  readonly events: number;
}

/**
 * The entries `first` to `last` are signed, and the statement lies in the object store under `object`.
 *
 * `head` is the hash of the last entry, `root` the Merkle root over all, `digest` the SHA-256 of the statement.
 */
export interface CheckpointSignedV1 {
  readonly number: number;
  readonly first: number;
  readonly last: number;
  readonly head: string;
  readonly root: string;
  readonly digest: string;
  readonly key_id: string;
  readonly object: string;
}

/** A Trust's answer to one version of the query: how many distinct persons fit, or why there is no number. */
export interface CohortAnsweredV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly trust: string;
  readonly outcome: "answered" | "suppressed" | "refused" | "failed" | "timed_out" | (string & {});
  readonly persons: number | "suppressed" | null;
  readonly reason?: string | null;
}

/** A Trust could not fix the cohort; it takes no part until an operator there has acted. */
export interface CohortFreezeRefusedV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly query_version: number;
  readonly reason: string;
}

/** A Trust fixed the persons and studies of the project. All later work uses these; they can shrink, never grow. */
export interface CohortFrozenV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly query_version: number;
  readonly query_digest: string;
  readonly persons: number | "suppressed";
  readonly studies: number | "suppressed";
}

/** A version of the project's query was saved and sent to the chosen Trusts. Its digest stands for the text. */
export interface CohortQuerySavedV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly query_digest: string;
  readonly trusts: ReadonlyArray<string>;
  readonly imaging: boolean;
}

/**
 * A Trust's answer to a round can't count, for the reason said; the round goes on without it where enough are left.
 *
 * Rounds count from 0.
 */
export interface ContributionExcludedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly trust: string;
  readonly round: number;
  readonly reason: string;
}

/** A ready data set at the Trust stands in for the images and labels of its PACS. Its digest names the content. */
export interface DatasetRegisteredV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly cases: number | "suppressed";
  readonly channels: ReadonlyArray<string>;
  readonly labels: Readonly<Record<string, number>>;
  readonly dataset_sha256: string;
}

/** The Trust's ready data set is given up; its images and labels come from the PACS again. */
export interface DatasetWithdrawnV1 {
  readonly project_id: string;
  readonly trust: string;
}

/** Delete the project's images, labels and prepared data, and all that nets keep of the project at the Trust. */
export interface DeleteImagesV1 {
  readonly project_id: string;
}

/** End every process of this attempt; with `forget` also delete the run's prepared data and local checkpoints. */
export interface EndRunV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly net: string;
  readonly forget: boolean;
}

/**
 * These Trusts have not said that the attempt has ended there; the net waits for their word no longer.
 *
 * Each of them ends what is left of the attempt before it prepares another run.
 */
export interface EndUnconfirmedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly trusts: ReadonlyArray<string>;
}

/** The researcher confirmed that the Trusts' labels are in place. Training can't start before. */
export interface EnrichmentConfirmedV1 {
  readonly project_id: string;
}

/** Fix the persons and studies that this version of the query, which you answered, finds now. */
export interface FreezeCohortV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly query_digest: string;
}

/**
 * The Trust deleted the project's images, and every net that was given a run of the project there what it had made
 * of them, and all reported it.
 */
export interface ImagesDeletedV1 {
  readonly project_id: string;
  readonly trust: string;
}

/** How far a Trust has come with pulling the project's studies into its archive. */
export interface ImagingProgressedV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly counts: StudyCounts;
}

/** Every study of the Trust's frozen cohort is imported, or rests at the cap. */
export interface ImagingReadyV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly imported: number | "suppressed";
  readonly failed: number | "suppressed";
}

/** Studies could not be imported at a Trust, by class of reason. They are tried again up to the Trust's cap. */
export interface ImportFailedV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly reason: string;
  readonly studies: number | "suppressed";
}

/** Pull the studies of your frozen cohort of this project from your PACS into your archive, de-identified. */
export interface ImportStudiesV1 {
  readonly project_id: string;
}

/** The Trust's operator brought labels; so many imported studies have one now. */
export interface LabelsRegisteredV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly labelled: number | "suppressed";
  readonly labels: Readonly<Record<string, number>>;
}

/** Somebody took a copy of the ledger, or of the part of it that these terms leave. */
export interface LedgerExportedV1 {
  readonly reader: string;
  readonly project_id?: string | null;
  readonly types?: ReadonlyArray<string>;
  readonly actor?: string | null;
  readonly since?: string | null;
  readonly until?: string | null;
}

/** Somebody read the ledger, narrowed by these terms. */
export interface LedgerReadV1 {
  readonly reader: string;
  readonly project_id?: string | null;
  readonly types?: ReadonlyArray<string>;
  readonly actor?: string | null;
  readonly since?: string | null;
  readonly until?: string | null;
  readonly entries: number;
}

/** Somebody tried to log in as this user and was refused. Tries with unknown addresses are counted, not said. */
export interface LoginFailedV1 {
  readonly user_id: string;
  readonly reason: string;
}

/** The user opened a session. */
export interface LoginSucceededV1 {
  readonly user_id: string;
  readonly session_id: string;
}

/**
 * A metric of one Trust in one round. A prediction has no rounds; its scores are told with round 0.
 *
 * A researcher's app may give several values in a round: each at `x` on the axis that `axis` names. Without them it is
 * shown at its round.
 */
export interface MetricReportedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly trust: string;
  readonly round: number;
  readonly name: string;
  readonly value: number;
  readonly x?: number | null;
  readonly axis?: string | null;
}

/** A model was defined in an approved project. */
export interface ModelCreatedV1 {
  readonly model_id: string;
  readonly project_id: string;
  readonly name: string;
  readonly description: string;
  readonly framework: "nvflare" | "flower";
  readonly job: "nnunet" | "custom";
}

/** The model was deleted; a run of it stops. */
export interface ModelDeletedV1 {
  readonly model_id: string;
  readonly project_id: string;
}

/** The model's name or description changed, before its first training. */
export interface ModelEditedV1 {
  readonly model_id: string;
  readonly project_id: string;
  readonly name: string;
  readonly description: string;
}

/**
 * The file was scanned, found clean and can be used in runs. `configuration` is what it says where it configures
 * the app.
 */
export interface ModelFileAcceptedV1 {
  readonly model_id: string;
  readonly project_id: string;
  readonly path: string;
  readonly digest: string;
  readonly size_bytes: number;
  readonly engine: string;
  readonly signatures: string;
  readonly findings?: ReadonlyArray<Finding>;
  readonly configuration?: AppConfiguration | null;
}

/** The file failed its scan and is deleted. `detail` says where, never what stands there. */
export interface ModelFileRefusedV1 {
  readonly model_id: string;
  readonly project_id: string;
  readonly path: string;
  readonly digest: string;
  readonly reason: string;
  readonly detail?: string;
}

/** Somebody took the file out of the model. Runs that were started with it keep it. */
export interface ModelFileRemovedV1 {
  readonly model_id: string;
  readonly project_id: string;
  readonly path: string;
}

/** A file of a model came, new or in the place of an earlier one; nothing may use it before its scan. */
export interface ModelFileUploadedV1 {
  readonly model_id: string;
  readonly project_id: string;
  readonly path: string;
  readonly digest: string;
  readonly size_bytes: number;
  readonly object: string;
}

/** An admin drains the net, with the reason: it ends what it holds and is given no further run. */
export interface NetDrainingV1 {
  readonly net: string;
  readonly reason: string;
}

/**
 * The net can take a run: its server is up and these Trusts are connected.
 *
 * `fencing` is that of the last assignment it has heard of and done with, 0 before the first: a net that has not heard
 * of its present assignment yet is not free. `resources` is what the net has for a run at each Trust; where a Trust is
 * not named there, its operator has not said, and nothing is matched.
 */
export interface NetFreeV1 {
  readonly net: string;
  readonly framework: "nvflare" | "flower";
  readonly trusts: ReadonlyArray<string>;
  readonly fencing?: number;
  readonly resources?: Readonly<Record<string, Resources>>;
}

/** The net is alive. It renews the lease of the run that the net holds. */
export interface NetHeartbeatV1 {
  readonly net: string;
  readonly state: "starting" | "free" | "assigned" | "running" | "cleaning" | (string & {});
  readonly trusts: ReadonlyArray<string>;
  readonly run_id?: string | null;
  readonly fencing?: number | null;
}

/** The net that held the run let its lease run out. */
export interface NetLostV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly net: string;
  readonly attempt: number;
}

/** An admin struck the net off, with the reason: nothing that it had heard of counts, until it says `NetFree`. */
export interface NetRetiredV1 {
  readonly net: string;
  readonly reason: string;
}

/** An admin lets the net take runs again, with the reason. */
export interface NetUndrainedV1 {
  readonly net: string;
  readonly reason: string;
}

/** At the hub. */
export interface ParkedDiscardedV1 {
  readonly process: string;
  readonly record: string;
  readonly record_type: string | null;
  readonly digest: string;
  readonly because: string;
}

/** At the hub. */
export interface ParkedRetriedV1 {
  readonly process: string;
  readonly scope: "record" | "key" | "type" | (string & {});
  readonly subject: string;
  readonly keys: number;
}

/** The user replaced their password; all earlier sessions ended. */
export interface PasswordChangedV1 {
  readonly user_id: string;
}

/** Every Trust planned from the federated fingerprint, and all plans have this digest. */
export interface PlanAgreedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly plan_digest: string;
  readonly by_trust: Readonly<Record<string, string>>;
}

/** Build the data set of this run from your frozen cohort's images and labels, and say how many cases it has. */
export interface PrepareRunV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly net: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** An admin recorded that this Trust approved. The project is approved from the first approval. */
export interface ProjectApprovedV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly reason: string;
}

/** A researcher made a project. The owner and the members may see it. */
export interface ProjectCreatedV1 {
  readonly project_id: string;
  readonly owner: string;
  readonly name: string;
  readonly description: string;
  readonly members: ReadonlyArray<string>;
}

/** An admin recorded that this Trust declined. It takes part in nothing. */
export interface ProjectDeclinedV1 {
  readonly project_id: string;
  readonly trust: string;
  readonly reason: string;
}

/** The owner or an admin deleted the project: its runs stop, its images go. */
export interface ProjectDeletedV1 {
  readonly project_id: string;
}

/** The owner changed the draft's name, description or members; the values are the new ones, whole. */
export interface ProjectEditedV1 {
  readonly project_id: string;
  readonly name: string;
  readonly description: string;
  readonly members: ReadonlyArray<string>;
}

/** The owner asked these Trusts for approval. Details and query are locked from here on. */
export interface ProjectStagedV1 {
  readonly project_id: string;
  readonly trusts: ReadonlyArray<string>;
  readonly query_version: number;
}

/** An admin gave the project back to its owner as a draft, before any Trust had approved. */
export interface ProjectUnstagedV1 {
  readonly project_id: string;
  readonly reason: string;
}

/** An admin gave the project a weight, with the reason: it gets that many turns where one of weight 1 gets one. */
export interface ProjectWeightedV1 {
  readonly project_id: string;
  readonly weight: number;
  readonly reason: string;
}

/** At the hub. */
export interface ProjectionsRebuiltV1 {
  readonly process: string;
  readonly events: number;
  readonly differing: ReadonlyArray<string>;
  readonly swapped: boolean;
}

/**
 * What a Trust answered outside of rounds can't be used, or isn't there; the run goes on without it.
 *
 * Its app asks for that, or it is the model of a Trust that has trained no round of this attempt.
 */
export interface ResultIgnoredV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly trust: string;
  readonly operation: string;
  readonly reason: string;
}

/**
 * The run's results are zipped in the object store, not yet scanned.
 *
 * `seal` is the digest of the seal in the zip, which has those of all its files.
 */
export interface ResultsCollectedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly fencing: number;
  readonly object: string;
  readonly name: string;
  readonly digest: string;
  readonly size_bytes: number;
  readonly seal?: string | null;
}

/** Somebody downloaded the run's results. */
export interface ResultsDownloadedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly user_id: string;
  readonly digest: string;
}

/** The run's results were scanned, found clean and can be downloaded under this name. */
export interface ResultsPublishedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly name: string;
  readonly digest: string;
  readonly size_bytes: number;
  readonly engine: string;
  readonly signatures: string;
}

/** The run's results failed their scan and are withheld. */
export interface ResultsRefusedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly reason: string;
}

/** An admin gave the user another role. */
export interface RoleChangedV1 {
  readonly user_id: string;
  readonly role: "viewer" | "researcher" | "admin" | (string & {});
}

/**
 * The Trusts' weights of a round were averaged and stored. Rounds count from 0.
 *
 * `size_bytes` and `file_digest`, a SHA-256, are of the object that the checkpoint names.
 */
export interface RoundCompleteV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly fencing: number;
  readonly rounds: number;
  readonly checkpoint: Checkpoint;
  readonly trusts: ReadonlyArray<string>;
  readonly size_bytes?: number | null;
  readonly file_digest?: string | null;
}

/** Somebody downloaded the weights after a round of the run. `digest` is the checkpoint's, over its tensors. */
export interface RoundDownloadedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly user_id: string;
  readonly round: number;
  readonly digest: string;
}

/**
 * The run has ended, and the time for which its rounds are kept is over: the weights after these are deleted.
 *
 * `kept` are those that stay for good: the last one, and the best one.
 */
export interface RoundsDeletedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly deleted: ReadonlyArray<AttemptRounds>;
  readonly kept: ReadonlyArray<number>;
}

/**
 * The run was given to a net. Reports of an older attempt or a smaller fencing number are refused from here on.
 *
 * `trusts` are those that take part in this attempt, `minimum_trusts` as many as have to (None means all of them);
 * `aggregation_weights` names none but them.
 * `virtual_start` and `virtual_finish` are what the project is charged: see `flip_scheduler.fairness`.
 */
export interface RunAssignedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly model_id: string;
  readonly net: string;
  readonly attempt: number;
  readonly fencing: number;
  readonly framework: "nvflare" | "flower";
  readonly job: "nnunet" | "custom";
  readonly trusts: ReadonlyArray<string>;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly checkpoint?: Checkpoint | null;
  readonly minimum_trusts?: number | null;
  readonly virtual_start?: number;
  readonly virtual_finish?: number;
  readonly aggregation_weights?: Readonly<Record<string, number>>;
  readonly earlier?: EarlierResults | null;
  readonly files?: Readonly<Record<string, string>>;
  readonly query_digest?: string | null;
  readonly continues?: Continued | null;
}

/** Count the persons that fit, by your own rules, before the deadline. */
export interface RunCohortQueryV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly query_digest: string;
  readonly sql: string;
  readonly imaging: boolean;
  readonly deadline: string;
}

/** The run ended without a result and is not tried again. */
export interface RunFailedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly model_id: string;
  readonly reason: string;
  readonly detail?: string;
}

/** The run is complete and its results can be downloaded. */
export interface RunFinishedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly model_id: string;
  readonly results: string;
}

/**
 * A Trust built the run's data set from its frozen cohort and checked it.
 *
 * `cohort_digest` is over the project and the members of the cohort as they were then.
 */
export interface RunPreparedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly trust: string;
  readonly cases: number;
  readonly dataset_digest: string;
  readonly cohort_digest?: string | null;
}

/** An admin gave the run another priority, with the reason: from 0, the last, to 9, the first. */
export interface RunPrioritisedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly priority: number;
  readonly reason: string;
}

/**
 * A researcher initiated training; the run waits for a net.
 *
 * At least `minimum_trusts` of `trusts` have to take part; None means all. `virtual_time` is that of the queue when
 * the run came: see `flip_scheduler.fairness`. `earlier` is what a prediction takes its model from, if not from a
 * path at each Trust, and `continues` what a training goes on from that doesn't begin anew. A researcher's app runs
 * with these very `files`, on the cohort of the query of `query_digest`.
 */
export interface RunQueuedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly model_id: string;
  readonly framework: "nvflare" | "flower";
  readonly job: "nnunet" | "custom";
  readonly trusts: ReadonlyArray<string>;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly minimum_trusts?: number | null;
  readonly resources?: Resources;
  readonly virtual_time?: number;
  readonly aggregation_weights?: Readonly<Record<string, number>>;
  readonly earlier?: EarlierResults | null;
  readonly files?: Readonly<Record<string, string>>;
  readonly query_digest?: string | null;
  readonly continues?: Continued | null;
}

/**
 * The attempt ended without a result; the run waits for a net again and goes on from its last completed round.
 *
 * It is given none before `rests_until`, where that is said.
 */
export interface RunRequeuedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly reason: string;
  readonly rests_until?: string | null;
}

/** The run has ended because it was stopped. */
export interface RunStoppedV1 {
  readonly run_id: string;
  readonly project_id: string;
}

/** Somebody stopped the run; its net is told to end it. */
export interface RunStoppingV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly net: string | null;
}

/** A session ended: by logout, by an admin, or because its refresh token was used twice. */
export interface SessionEndedV1 {
  readonly user_id: string;
  readonly session_id: string;
  readonly reason: string;
}

/** The run went on to the next stage. */
export interface StageReachedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly stage: "preparing" | "fingerprint" | "planning" | "preprocessing" | "training" | "validating" | "predicting" | "collecting" | (string & {});
}

/** The first round of this attempt began. */
export interface TrainingStartedV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly first_round: number;
  readonly rounds: number;
}

/** A Trust's answer, past its disclosure control. `distributions` is by column of the query, then by category. */
export interface TrustAnsweredQueryV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly outcome: "answered" | "suppressed" | "refused" | "failed" | "timed_out" | (string & {});
  readonly persons?: number | "suppressed" | null;
  readonly distributions?: Readonly<Record<string, Readonly<Record<string, number | "suppressed">>>>;
  readonly reason?: string | null;
}

/** The project's images, labels and prepared data are gone from the Trust. */
export interface TrustDeletedImagesV1 {
  readonly project_id: string;
}

/** At a Trust. */
export interface TrustDiscardedParkedV1 {
  readonly process: string;
  readonly record: string;
  readonly record_type: string | null;
  readonly digest: string;
  readonly because: string;
}

/** No process of the attempt is left at the Trust. */
export interface TrustEndedRunV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
}

/**
 * The net keeps nothing of the project at the Trust any more: no data set, no preprocessed image, no state of a
 * trainer. It takes no run of the project there again.
 */
export interface TrustForgotProjectV1 {
  readonly project_id: string;
  readonly net: string;
}

/** The Trust fixed its cohort of the project. */
export interface TrustFrozeCohortV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly query_digest: string;
  readonly persons: number | "suppressed";
  readonly studies: number | "suppressed";
}

/** The Trust's import is through. */
export interface TrustImagesReadyV1 {
  readonly project_id: string;
  readonly imported: number | "suppressed";
  readonly failed: number | "suppressed";
}

/** Studies failed at the Trust, by class of reason. */
export interface TrustImportFailedV1 {
  readonly project_id: string;
  readonly reason: string;
  readonly studies: number | "suppressed";
}

/** The Trust's import of the project's studies, by state. */
export interface TrustImportProgressedV1 {
  readonly project_id: string;
  readonly counts: StudyCounts;
}

/** A Trust takes no part in this attempt, for the reason said; enough others do, and it goes on with them. */
export interface TrustLeftOutV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly trust: string;
  readonly reason: string;
}

/** The Trust's data set of the run is ready. */
export interface TrustPreparedRunV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly cases: number;
  readonly dataset_digest: string;
  readonly cohort_digest?: string | null;
}

/** At a Trust. */
export interface TrustRebuiltProjectionsV1 {
  readonly process: string;
  readonly events: number;
  readonly differing: ReadonlyArray<string>;
  readonly swapped: boolean;
}

/** At a Trust. */
export interface TrustRefilledBrokerV1 {
  readonly process: string;
  readonly events: number;
}

/** The Trust could not fix its cohort of the project. */
export interface TrustRefusedFreezeV1 {
  readonly project_id: string;
  readonly query_version: number;
  readonly reason: string;
}

/** The Trust can't take part in the run, with the reason. */
export interface TrustRefusedRunV1 {
  readonly run_id: string;
  readonly project_id: string;
  readonly attempt: number;
  readonly reason: string;
}

/** The Trust's operator registered a ready nnU-Net data set instead of the PACS's images: what its cases hold. */
export interface TrustRegisteredDatasetV1 {
  readonly project_id: string;
  readonly cases: number | "suppressed";
  readonly channels: ReadonlyArray<string>;
  readonly labels: Readonly<Record<string, number>>;
  readonly dataset_sha256: string;
}

/** The Trust's operator brought labels. `labels` names the structures with their value in the label map. */
export interface TrustRegisteredLabelsV1 {
  readonly project_id: string;
  readonly labelled: number | "suppressed";
  readonly labels: Readonly<Record<string, number>>;
}

/** At a Trust. */
export interface TrustRetriedParkedV1 {
  readonly process: string;
  readonly scope: "record" | "key" | "type" | (string & {});
  readonly subject: string;
  readonly keys: number;
}

/** A Trust has begun to run a query. */
export interface TrustTookUpQueryV1 {
  readonly project_id: string;
  readonly query_version: number;
}

/** The Trust's operator gave the ready data set up; the PACS's images count again. */
export interface TrustWithdrewDatasetV1 {
  readonly project_id: string;
}

/** The invited user set a password of their own; from here on they may act. */
export interface UserActivatedV1 {
  readonly user_id: string;
}

/** An admin shut the user out, sessions included. */
export interface UserDisabledV1 {
  readonly user_id: string;
}

/** An admin let the user in again. */
export interface UserEnabledV1 {
  readonly user_id: string;
}

/** An admin invited somebody with exactly one role. The invitation's one-time password went out by mail. */
export interface UserInvitedV1 {
  readonly user_id: string;
  readonly role: "viewer" | "researcher" | "admin" | (string & {});
  readonly email_digest: string;
}

/** The Trust's worker of this net started: whatever ran there before has ended. */
export interface WorkerStartedV1 {
  readonly net: string;
}

/** Each message's body by the name in its CloudEvents `type`. */
export interface Messages {
  readonly "flip.audit.CheckpointSigned.v1": CheckpointSignedV1;
  readonly "flip.audit.LedgerExported.v1": LedgerExportedV1;
  readonly "flip.audit.LedgerRead.v1": LedgerReadV1;
  readonly "flip.auth.LoginFailed.v1": LoginFailedV1;
  readonly "flip.auth.LoginSucceeded.v1": LoginSucceededV1;
  readonly "flip.auth.PasswordChanged.v1": PasswordChangedV1;
  readonly "flip.auth.RoleChanged.v1": RoleChangedV1;
  readonly "flip.auth.SessionEnded.v1": SessionEndedV1;
  readonly "flip.auth.UserActivated.v1": UserActivatedV1;
  readonly "flip.auth.UserDisabled.v1": UserDisabledV1;
  readonly "flip.auth.UserEnabled.v1": UserEnabledV1;
  readonly "flip.auth.UserInvited.v1": UserInvitedV1;
  readonly "flip.cohort.CohortAnswered.v1": CohortAnsweredV1;
  readonly "flip.cohort.CohortFreezeRefused.v1": CohortFreezeRefusedV1;
  readonly "flip.cohort.CohortFrozen.v1": CohortFrozenV1;
  readonly "flip.cohort.CohortQuerySaved.v1": CohortQuerySavedV1;
  readonly "flip.cohort.FreezeCohort.v1": FreezeCohortV1;
  readonly "flip.cohort.RunCohortQuery.v1": RunCohortQueryV1;
  readonly "flip.cohort.TrustAnsweredQuery.v1": TrustAnsweredQueryV1;
  readonly "flip.cohort.TrustFrozeCohort.v1": TrustFrozeCohortV1;
  readonly "flip.cohort.TrustRefusedFreeze.v1": TrustRefusedFreezeV1;
  readonly "flip.cohort.TrustTookUpQuery.v1": TrustTookUpQueryV1;
  readonly "flip.files.ModelFileAccepted.v1": ModelFileAcceptedV1;
  readonly "flip.files.ModelFileRefused.v1": ModelFileRefusedV1;
  readonly "flip.files.ModelFileRemoved.v1": ModelFileRemovedV1;
  readonly "flip.files.ModelFileUploaded.v1": ModelFileUploadedV1;
  readonly "flip.files.ResultsDownloaded.v1": ResultsDownloadedV1;
  readonly "flip.files.ResultsPublished.v1": ResultsPublishedV1;
  readonly "flip.files.ResultsRefused.v1": ResultsRefusedV1;
  readonly "flip.files.RoundDownloaded.v1": RoundDownloadedV1;
  readonly "flip.files.RoundsDeleted.v1": RoundsDeletedV1;
  readonly "flip.imaging.DatasetRegistered.v1": DatasetRegisteredV1;
  readonly "flip.imaging.DatasetWithdrawn.v1": DatasetWithdrawnV1;
  readonly "flip.imaging.DeleteImages.v1": DeleteImagesV1;
  readonly "flip.imaging.ImagesDeleted.v1": ImagesDeletedV1;
  readonly "flip.imaging.ImagingProgressed.v1": ImagingProgressedV1;
  readonly "flip.imaging.ImagingReady.v1": ImagingReadyV1;
  readonly "flip.imaging.ImportFailed.v1": ImportFailedV1;
  readonly "flip.imaging.ImportStudies.v1": ImportStudiesV1;
  readonly "flip.imaging.LabelsRegistered.v1": LabelsRegisteredV1;
  readonly "flip.imaging.TrustDeletedImages.v1": TrustDeletedImagesV1;
  readonly "flip.imaging.TrustForgotProject.v1": TrustForgotProjectV1;
  readonly "flip.imaging.TrustImagesReady.v1": TrustImagesReadyV1;
  readonly "flip.imaging.TrustImportFailed.v1": TrustImportFailedV1;
  readonly "flip.imaging.TrustImportProgressed.v1": TrustImportProgressedV1;
  readonly "flip.imaging.TrustRegisteredDataset.v1": TrustRegisteredDatasetV1;
  readonly "flip.imaging.TrustRegisteredLabels.v1": TrustRegisteredLabelsV1;
  readonly "flip.imaging.TrustWithdrewDataset.v1": TrustWithdrewDatasetV1;
  readonly "flip.operations.BrokerRefilled.v1": BrokerRefilledV1;
  readonly "flip.operations.ParkedDiscarded.v1": ParkedDiscardedV1;
  readonly "flip.operations.ParkedRetried.v1": ParkedRetriedV1;
  readonly "flip.operations.ProjectionsRebuilt.v1": ProjectionsRebuiltV1;
  readonly "flip.operations.TrustDiscardedParked.v1": TrustDiscardedParkedV1;
  readonly "flip.operations.TrustRebuiltProjections.v1": TrustRebuiltProjectionsV1;
  readonly "flip.operations.TrustRefilledBroker.v1": TrustRefilledBrokerV1;
  readonly "flip.operations.TrustRetriedParked.v1": TrustRetriedParkedV1;
  readonly "flip.projects.ApprovalWithdrawn.v1": ApprovalWithdrawnV1;
  readonly "flip.projects.EnrichmentConfirmed.v1": EnrichmentConfirmedV1;
  readonly "flip.projects.ModelCreated.v1": ModelCreatedV1;
  readonly "flip.projects.ModelDeleted.v1": ModelDeletedV1;
  readonly "flip.projects.ModelEdited.v1": ModelEditedV1;
  readonly "flip.projects.ProjectApproved.v1": ProjectApprovedV1;
  readonly "flip.projects.ProjectCreated.v1": ProjectCreatedV1;
  readonly "flip.projects.ProjectDeclined.v1": ProjectDeclinedV1;
  readonly "flip.projects.ProjectDeleted.v1": ProjectDeletedV1;
  readonly "flip.projects.ProjectEdited.v1": ProjectEditedV1;
  readonly "flip.projects.ProjectStaged.v1": ProjectStagedV1;
  readonly "flip.projects.ProjectUnstaged.v1": ProjectUnstagedV1;
  readonly "flip.scheduler.NetDraining.v1": NetDrainingV1;
  readonly "flip.scheduler.NetLost.v1": NetLostV1;
  readonly "flip.scheduler.NetRetired.v1": NetRetiredV1;
  readonly "flip.scheduler.NetUndrained.v1": NetUndrainedV1;
  readonly "flip.scheduler.ProjectWeighted.v1": ProjectWeightedV1;
  readonly "flip.scheduler.RunAssigned.v1": RunAssignedV1;
  readonly "flip.scheduler.RunFailed.v1": RunFailedV1;
  readonly "flip.scheduler.RunFinished.v1": RunFinishedV1;
  readonly "flip.scheduler.RunPrioritised.v1": RunPrioritisedV1;
  readonly "flip.scheduler.RunQueued.v1": RunQueuedV1;
  readonly "flip.scheduler.RunRequeued.v1": RunRequeuedV1;
  readonly "flip.scheduler.RunStopped.v1": RunStoppedV1;
  readonly "flip.scheduler.RunStopping.v1": RunStoppingV1;
  readonly "flip.trainer-node.AttemptEnded.v1": AttemptEndedV1;
  readonly "flip.trainer-node.ContributionExcluded.v1": ContributionExcludedV1;
  readonly "flip.trainer-node.EndRun.v1": EndRunV1;
  readonly "flip.trainer-node.EndUnconfirmed.v1": EndUnconfirmedV1;
  readonly "flip.trainer-node.MetricReported.v1": MetricReportedV1;
  readonly "flip.trainer-node.NetFree.v1": NetFreeV1;
  readonly "flip.trainer-node.NetHeartbeat.v1": NetHeartbeatV1;
  readonly "flip.trainer-node.PlanAgreed.v1": PlanAgreedV1;
  readonly "flip.trainer-node.PrepareRun.v1": PrepareRunV1;
  readonly "flip.trainer-node.ResultIgnored.v1": ResultIgnoredV1;
  readonly "flip.trainer-node.ResultsCollected.v1": ResultsCollectedV1;
  readonly "flip.trainer-node.RoundComplete.v1": RoundCompleteV1;
  readonly "flip.trainer-node.RunPrepared.v1": RunPreparedV1;
  readonly "flip.trainer-node.StageReached.v1": StageReachedV1;
  readonly "flip.trainer-node.TrainingStarted.v1": TrainingStartedV1;
  readonly "flip.trainer-node.TrustEndedRun.v1": TrustEndedRunV1;
  readonly "flip.trainer-node.TrustLeftOut.v1": TrustLeftOutV1;
  readonly "flip.trainer-node.TrustPreparedRun.v1": TrustPreparedRunV1;
  readonly "flip.trainer-node.TrustRefusedRun.v1": TrustRefusedRunV1;
  readonly "flip.trainer-node.WorkerStarted.v1": WorkerStartedV1;
}

export type MessageType = keyof Messages;
