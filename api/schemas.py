"""What goes over the wire, as pydantic models: the answers are built from them, OpenAPI is made from them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared.folders import names
from shared.trainings.recipe import EVALUATED_MASKS, MaskKind, Parameters

Task = Literal["denoise", "inpaint"]
ALIAS = "^[a-z][a-z0-9-]{0,62}$"  # never all digits: those are versions
VERSIONED = "^[a-z][a-z0-9-]{0,62}@[0-9]{1,9}$"


def timestamp(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as RFC 3339 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")


class Form(BaseModel):
    """Input. Unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and "\0" in value and info.field_name != "cursor":  # which is decoded before it is used
            raise PydanticCustomError("nul", "It must not hold the character NUL, which PostgreSQL cannot store")
        return value


class Body(Form):
    """A JSON body, whose values have types of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value  # 3.0 is an integer, says JSON Schema


class FieldError(View):
    """What is wrong with one field."""

    field: str
    code: str
    detail: str


class Problem(View):
    """An error: RFC 9457."""

    type: str = Field(description="the address of a page about this code")
    title: str
    status: int
    detail: str = Field(description="what is wrong here, and what to do")
    code: str
    request_id: str
    errors: list[FieldError] = []


class PartView(View):
    """A mask or reference, as its header says."""

    name: str
    bytes: int
    sha256: str | None = Field(description="null for what is read in place, until it was read")
    format: str
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    bits: int | None = None


class InputView(PartView):
    """The picture, as its header says, with its mask and reference if there are; or the weights of a model; or a folder."""

    mask: PartView | None = None
    reference: PartView | None = None


class ProgressView(View):
    """How far the attempt is."""

    done: int
    total: int
    unit: str


class ResultView(View):
    """The restored file."""

    bytes: int
    sha256: str
    type: str
    width: int
    height: int
    bits: int
    executor: str
    precision: str
    seconds: float


class PublishedView(View):
    """What a network was exported as, and how it compares with its Keras original."""

    bytes: int
    sha256: str
    type: str
    exporter: str
    difference: float = Field(description="largest difference of an output, of 0..1")
    halo: int = Field(description="pixels of context that a tile needs")
    tiled_psnr: float = Field(description="dB between tiled and whole")
    inexpressible: str | None = Field(description="why OpenVINO cannot run it, and TensorFlow does")
    seconds: float


class TrainedView(View):
    """The model that a training made, and how its exported network compares with its Keras original."""

    bytes: int = Field(description="of the weights")
    sha256: str = Field(description="of the weights")
    type: str
    model: str = Field(description="`name@version`")
    parameters: int
    steps: int
    exporter: str
    difference: float = Field(description="largest difference of an output, of 0..1")
    halo: int = Field(description="pixels of context that a tile needs")
    tiled_psnr: float = Field(description="dB between tiled and whole")
    inexpressible: str | None = Field(description="why OpenVINO cannot run it, and TensorFlow does")
    seconds: float = Field(description="of the last attempt")


class EvaluatedView(View):
    """What was measured; the figures are the job's metrics."""

    bytes: int
    models: list[str]
    pictures: int
    rows: int = Field(description="of figures")
    seconds: float = Field(description="of the last attempt")


class ListedView(View):
    """What a folder or an archive holds."""

    bytes: int = Field(description="of the pictures to restore")
    files: int = Field(description="all of them; the others but pictures are skipped, failed or ignored")
    pictures: int = Field(description="to restore")
    pixels: int = Field(description="of the pictures to restore")
    skipped: int = Field(description="done before, or something else is in the place of the output")
    done_before: int = Field(description="of the skipped")
    failed: int = Field(description="what their headers show cannot be restored, or cannot be read")
    ignored: int = Field(description="no pictures, by the endings of their names")
    restoring_s: float | None = Field(description="what one worker will take; null while the model was never measured")
    free: int = Field(description="bytes free where the outputs go")
    seconds: float = Field(description="that looking took")


class IngestedView(View):
    """What became a data set."""

    bytes: int = Field(description="of its pixels and its index")
    sha256: str = Field(description="of its contents")
    images: int
    pixels: int
    skipped: int = Field(description="what is left out; the report says why")
    seconds: float


class QualityView(View):
    """How close a picture is to the reference. mse, rmse and mae are in grey levels of the finer depth of the two."""

    psnr: float | None = Field(description="dB; null where both are equal")
    ssim: float | None = Field(description="null where a side is shorter than 11 pixels")
    mse: float
    rmse: float
    mae: float


class MetricsView(View):
    """The figures of the restored file, and of the uploaded one beside it."""

    protocol: str
    output: QualityView
    input: QualityView


class MetricsRowView(View):
    """One row of figures. mse, rmse and mae are in grey levels of the finer depth of the two; null is what was not measured."""

    of: str = Field(description="restore: output, input; train: train, validation; evaluate and a training's end: a model, input, a method")
    epoch: int | None = Field(description="of a training, from 1")
    split: Literal["train", "validation"] | None = Field(description="of an epoch: what was learnt from, or what was held out")
    picture: str | None = Field(description="that it is about; null where it is the mean over all")
    protocol: str
    loss: float | None
    psnr: float | None = Field(description="dB; null where both are equal")
    ssim: float | None = Field(description="null where a side is shorter than 11 pixels")
    mse: float | None
    rmse: float | None
    mae: float | None
    seconds: float | None


class ArtifactView(View):
    """A file that a training leaves on its way."""

    name: str
    bytes: int
    sha256: str
    type: str
    link: str


class ArtifactPage(View):
    """What a training left so far, by name."""

    items: list[ArtifactView]
    next: str | None


class MetricsPage(View):
    """The figures of a job, in the order in which they were taken; of a restoration none without a reference."""

    items: list[MetricsRowView]
    next: str | None


class ErrorView(View):
    """Why a job failed."""

    code: str
    title: str
    detail: str
    retryable: bool


class JobView(View):
    """A job."""

    id: str
    kind: Literal["restore", "train", "evaluate", "ingest", "publish"]
    state: Literal["queued", "running", "succeeded", "failed", "canceled"]
    version: int = Field(description="rises with every change")
    task: str | None = Field(description="null where no network has a part in it, as in making a data set")
    lane: Literal["interactive", "bulk", "train"]
    model: str | None
    label: str | None
    batch: str | None
    path: str | None
    owner: str
    input: InputView
    params: dict[str, Any]
    progress: ProgressView
    position: int | None = Field(description="how many queued jobs come before it; null beyond 1000")
    eta_s: float | None
    attempts: int
    max_attempts: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    expires_at: str | None
    result: ResultView | TrainedView | EvaluatedView | PublishedView | ListedView | IngestedView | None
    metrics: MetricsView | None = Field(description="with a reference, once the job has succeeded")
    notes: list[str]
    error: ErrorView | None
    retry_of: str | None
    links: dict[str, str]


class JobPage(View):
    """Jobs, newest first."""

    items: list[JobView]
    next: str | None = Field(description="the cursor of the next page")


class CountsView(View):
    """How many files of a batch there are in each state; `total` is the sum."""

    total: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    canceled: int
    ignored: int


class BatchView(View):
    """A batch."""

    id: str
    state: Literal["open", "listing", "running", "paused", "succeeded", "completed_with_errors", "failed", "canceled"]
    reason: str | None = Field(description="a code: why it is paused, where nobody asked for it, or could not be listed")
    label: str | None
    params: dict[str, Any] = Field(description="what was asked of a folder or an archive; empty where pictures are sent one by one")
    counts: CountsView
    rate_per_s: float | None = Field(description="pictures a second lately; null while too few have ended")
    eta_s: float | None = Field(description="until the last has ended at that rate; null while it is paused")
    created_at: str
    finished_at: str | None
    links: dict[str, str]


class BatchPage(View):
    """Batches, newest first."""

    items: list[BatchView]
    next: str | None = Field(description="the cursor of the next page")


class ItemView(View):
    """A file of a batch."""

    path: str
    state: Literal["waiting", "running", "succeeded", "failed", "skipped", "canceled", "ignored"]
    job: str | None = Field(description="the id of its job; null for what was refused or passed over")
    notes: list[str]
    error: ErrorView | None
    links: dict[str, str] = Field(description="of its job")


class ItemPage(View):
    """Files of a batch, in the order of their paths."""

    items: list[ItemView]
    next: str | None = Field(description="the cursor of the next page")


class FoundView(View):
    """What a data set was found to hold, in numbers."""

    images: int = Field(description="pictures; of kind=paired, pairs and pictures without a partner")
    usable: int = Field(description="that are in it")
    ignored: int = Field(description="files that are no pictures, by the endings of their names")
    skipped: int = Field(description="left out, each with a code")
    duplicates: int = Field(description="exact copies, of which one is kept")
    near_duplicates: int = Field(description="groups that look alike: all of one lie on the same side of the split")
    noisy: int = Field(description="of the skipped: noisy ones among clean ones")
    misaligned: int = Field(description="of the skipped: pairs that are shifted")
    largest_patch: int = Field(description="the side of the largest crop that one of the usable has room for")


class DatasetView(View):
    """A data set."""

    id: str
    kind: Literal["clean", "paired", "noisy"]
    state: Literal["ingesting", "ready", "failed"]
    label: str | None
    job: str = Field(description="what makes it ready")
    sha256: str | None = Field(description="of its contents: the same pictures are the same set; null until it is ready")
    images: int | None = Field(description="pictures, or pairs, in it; null until it is ready")
    pixels: int | None
    bytes: int | None = Field(description="that it takes on the disk")
    created_at: str
    report: FoundView | None = Field(description="null until it was looked through")
    error: ErrorView | None = Field(description="why it failed; null where its job was canceled")
    links: dict[str, str]


class DatasetPage(View):
    """Data sets, newest first."""

    items: list[DatasetView]
    next: str | None = Field(description="the cursor of the next page")


class SkippedView(View):
    """A picture that is left out."""

    path: str
    code: str = Field(description="as of problems")
    detail: str


class DuplicateView(View):
    """An exact copy."""

    path: str
    of: str = Field(description="the one that is kept")


class NoisyView(View):
    """A noisy picture among clean ones."""

    path: str
    sigma: float = Field(description="of its noise, in levels of 0 to 255")


class MisalignedView(View):
    """A pair that is shifted: how many pixels the noisy one lies further right and down."""

    path: str
    dx: float
    dy: float


class SplitView(View):
    """How many are held out, at the share that a training has by default."""

    share: float
    training: int
    held_out: int


class SidesView(View):
    """Of a picture."""

    width: int
    height: int


class ReportView(View):
    """What a data set was found to hold. Of each list the first 1 000; `counts` counts all."""

    images: int
    usable: int
    ignored: int
    pixels: int
    counts: dict[str, int]
    skipped: list[SkippedView]
    duplicates: list[DuplicateView]
    near_duplicates: list[list[str]] = Field(description="groups that look alike, by perceptual hash; of each the first 50")
    noisy: list[NoisyView]
    misaligned: list[MisalignedView]
    split: SplitView
    modes: dict[str, int] = Field(description="how many are grey or rgb, with 8 or 16 bits a channel")
    sizes: dict[str, SidesView] = Field(description="smallest, median and largest")


class ModelView(View):
    """A model version: its manifest."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: int
    task: str
    state: Literal["preparing", "ready", "failed"]
    job: str | None = Field(description="what makes it ready; null for models that come with Lacuna")
    default: bool = Field(description="whether its task uses it where no model is named")
    aliases: list[str]


class ModelMetricsRowView(View):
    """One row of a model's evaluations, with all that its protocol measures."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="`name@version`")
    protocol: str | None
    set: str | None = Field(description="the pictures that it was measured on")
    job: str | None = Field(default=None, description="the evaluation, which has every picture's figures; none for what the manifest tells")


class ModelMetricsPage(View):
    """What models were measured at: what the manifest tells, then your evaluations."""

    items: list[ModelMetricsRowView]
    next: str | None


class ModelPage(View):
    """Models by name and version."""

    items: list[ModelView]
    next: str | None


class WorkerView(View):
    """A worker process that was heard of within the last lease."""

    id: str = Field(description="host and process")
    lanes: list[str]
    executor: str = Field(description="what it runs networks with: openvino or tensorflow")
    precision: str = Field(description="float32 or bfloat16")
    device: str = Field(description="cpu or gpu")
    started_at: str
    seen_at: str


class LaneView(View):
    """What waits in a lane."""

    name: Literal["interactive", "bulk", "train"]
    jobs: int
    pixels: int
    oldest_s: float = Field(description="since when the oldest of them waits")
    backlog_s: float | None = Field(description="until they are done, at the rates of their models; null while one is unknown")
    paused: Literal["storage_full"] | None = Field(description="why nothing of it is begun: a nearly full disk; interactive goes on")


class DiskView(View):
    """Where pictures are kept, in bytes."""

    free: int
    min_free: int = Field(description="below this, uploads are refused and bulk pauses")


class SystemView(View):
    """What Lacuna runs on."""

    version: str
    workers: list[WorkerView]
    lanes: list[LaneView]
    disk: DiskView


UUID: dict[str, Any] = {"format": "uuid"}  # told, and checked where it is used: what is none has a code of its own
STORABLE: dict[str, Any] = {"pattern": r"^[^\x00]*$"}


class Asked(BaseModel):
    """What is asked of a picture, or of all of a folder."""

    task: Task = Field("denoise", description="inpaint fills what the `mask` marks")
    model: str | None = Field(
        None, min_length=1, max_length=140, description="`name`, `name@version` or `name@alias`; none: the task's default"
    )
    format: Literal["keep", "png", "jpeg", "tiff", "webp", "bmp"] = "keep"
    quality: int | None = Field(None, ge=1, le=100, description="of the JPEG or lossy WebP that is written; none: as good as the upload")
    strength: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="of task=denoise: how much of the change is made; none: 1, all of it"
    )
    speed: Literal["normal", "best"] = Field("normal", description="best: the mean of all eight turns and mirrorings, eight times the work")
    lane: Literal["interactive", "bulk"] | None = Field(None, description="none: interactive, but bulk in a batch")
    label: str | None = Field(None, max_length=200, description="yours, to find jobs by")


class RestorationForm(Asked, Form):
    """The fields beside the files."""

    batch: str | None = Field(None, description="the open batch that the picture belongs to", json_schema_extra=UUID)
    path: str | None = Field(None, max_length=names.LONGEST, description="where it lies in its batch: `album/scan 7.tif`")

    @field_validator("path")
    @classmethod
    def _relative(cls, value: str | None) -> str | None:
        if value is not None and not all(part not in ("", ".", "..") for part in value.split("/")):
            raise PydanticCustomError("path", "It is a path in the batch: names with / between them, none of them empty, . or ..")
        if value is not None and names.is_long(value):
            raise PydanticCustomError("path", f"It has more than {names.LONGEST} bytes")
        return value

    @model_validator(mode="after")
    def _both(self) -> "RestorationForm":
        if (self.batch is None) != (self.path is None):
            raise PydanticCustomError("batch", "`batch` and `path` belong together: which batch, and where in it")
        return self


class PreviewForm(Form):
    """No fields beside `image`."""


class ModelForm(Form):
    """No fields beside `manifest` and `weights`."""


class AliasBody(Body):
    """Which version an alias names."""

    version: int = Field(ge=1, le=999_999_999, description="of the model in the address")


class DefaultBody(Body):
    """Which model a task uses."""

    model: str = Field(pattern=VERSIONED, description="`name@version`")


PLACE: dict[str, Any] = {"max_length": 4096, "min_length": 1, "json_schema_extra": STORABLE}


class BatchBody(Asked, Body):
    """Of a new batch. Without `folder` it is open for uploads, and takes nothing but a label."""

    folder: str | None = Field(None, description="a folder on the server's machine, within LACUNA_ROOTS", **PLACE)
    out: str | None = Field(None, description="where the outputs go, within a root to write to", **PLACE)
    pattern: str | None = Field(None, description="only paths below `folder` that a shell's pattern like `1920s/*.tif` fits", **PLACE)
    mask: str | None = Field(None, description="with task=inpaint: one mask for all, a file", **PLACE)
    masks: str | None = Field(None, description="or a folder with a mask for each picture, by name", **PLACE)
    references: str | None = Field(None, description="a folder with the same pictures undamaged, by name, to compare with", **PLACE)
    on_existing: Literal["skip", "overwrite"] = Field("skip", description="what becomes of a picture whose output has a file in its way")
    verify: bool = Field(False, description="know what was done before by the contents of the files, not by their times")
    dry_run: bool = Field(False, description="only count: the answer is a job whose result tells how much there is to do")

    @model_validator(mode="after")
    def _fitting(self) -> "BatchBody":
        if self.folder is None:
            if needless := sorted(self.model_fields_set - {"label", "folder"}):
                raise PydanticCustomError("folder", f"`{needless[0]}` belongs to a `folder`; uploads bring their own fields along")
        elif self.out is None:
            raise PydanticCustomError("out", "A `folder` needs an `out`, where its outputs go")
        if self.mask is not None and self.masks is not None:
            raise PydanticCustomError("masks", "Either one `mask` for all, or a folder of `masks`")
        if self.task != "inpaint" and (self.mask or self.masks):
            raise PydanticCustomError("mask", f"task={self.task} uses no mask; task=inpaint does")
        return self


class TrainingBody(Parameters, Body):
    """What a training is told. Nothing but `name`, `task` and `dataset` is needed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=ALIAS, description="of the model that it makes; its version is the next that is free")
    dataset: str = Field(description="the data set that it learns from", json_schema_extra=UUID)
    base: str | None = Field(
        None, min_length=1, max_length=140, description="the model that it starts from: `name`, `name@version` or `name@alias`"
    )
    label: str | None = Field(None, max_length=200, description="yours, to find jobs by")
    terms: str = Field("not stated", max_length=500, description="on which terms the pictures may be used, for the model's card")
    licence: str = Field("", max_length=500, description="of the weights, for the model's card")


class EvaluationBody(Body):
    """What is measured on what."""

    models: list[Annotated[str, Field(min_length=1, max_length=140, **STORABLE)]] = Field(
        min_length=1, max_length=8, description="of one task, each as `name`, `name@version` or `name@alias`"
    )
    dataset: str = Field(description="of clean pictures or of pairs", json_schema_extra=UUID)
    task: Task = "denoise"
    sigmas: list[Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)]] = Field(
        [15.0, 25.0, 50.0], min_length=1, max_length=8, description="of task=denoise, on clean pictures: levels of noise, in grey levels"
    )
    masks: list[MaskKind] = Field(
        list(EVALUATED_MASKS), min_length=1, max_length=8, description="of task=inpaint: what is cut out, each kind by itself"
    )
    label: str | None = Field(None, max_length=200, description="yours, to find jobs by")


class ArchiveForm(Asked, Form):
    """The fields beside the archive, of all pictures in it."""

    pattern: str | None = Field(
        None, min_length=1, max_length=4096, description="only paths in the archive that a shell's pattern like `1920s/*.tif` fits"
    )


DatasetKind = Literal["clean", "paired", "noisy"]
KIND = "clean: undamaged pictures; paired: the same pictures noisy and clean, in two folders of these names; noisy: nothing but noisy ones"


class DatasetBody(Body):
    """Of a data set that is made of a folder."""

    kind: DatasetKind = Field(description=KIND)
    folder: str = Field(description="a folder on the server's machine, within LACUNA_ROOTS", **PLACE)
    label: str | None = Field(None, max_length=200, description="yours")


class DatasetForm(Form):
    """The fields beside the archive."""

    kind: DatasetKind = Field(description=KIND)
    label: str | None = Field(None, max_length=200, description="yours")


class JobQuery(Form):
    """Of one job."""

    wait: float = Field(0, ge=0, le=60, allow_inf_nan=False, description="seconds to hold the answer until the state changes")


class JobsQuery(Form):
    """Of the list."""

    state: Literal["queued", "running", "succeeded", "failed", "canceled"] | None = None
    kind: Literal["restore", "train", "evaluate", "ingest", "publish"] | None = None
    task: str | None = Field(None, json_schema_extra=STORABLE)
    model: str | None = Field(None, pattern=r"^[a-z0-9-]+(@[0-9]{1,9})?$", description="`name@version`, or `name`: all its versions")
    lane: Literal["interactive", "bulk", "train"] | None = None
    label: str | None = Field(None, json_schema_extra=STORABLE)
    batch: str | None = Field(None, json_schema_extra=UUID)
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(
        None, description="the `next` of the page before", json_schema_extra={"pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"}
    )


class BatchesQuery(Form):
    """Of the list of batches."""

    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(
        None, description="the `next` of the page before", json_schema_extra={"pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"}
    )


class DatasetsQuery(BatchesQuery):
    """Of the list of data sets."""


class ItemsQuery(Form):
    """Of the files of a batch."""

    state: Literal["waiting", "running", "succeeded", "failed", "skipped", "canceled", "ignored"] | None = None
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, description="the `next` of the page before", json_schema_extra={"pattern": "^([A-Za-z0-9_-]{4})*$"})


class ManifestQuery(Form):
    """In which form."""

    format: Literal["jsonl", "csv"] = "jsonl"


class PreviewQuery(Form):
    """Of what."""

    of: Literal["input", "result", "mask", "reference"] = Field("result", description="what the job was sent, or made")


class EventsQuery(Form):
    """Whose changes: of one job, of a batch, or of all."""

    job: str | None = Field(None, description="only this job", json_schema_extra=UUID)
    batch: str | None = Field(None, description="only jobs of this batch", json_schema_extra=UUID)


class NoQuery(Form):
    """Nothing may be asked."""
