"""What a packed store holds: its index, and what is said where the index or a file does not fit."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray

from equilidar.data.listing import content_hash, require_folder
from equilidar.data.packing_progress import size_text
from equilidar.structures import SensorContract

# Bump whenever files of the same name mean something else.
SCHEMA_VERSION = 1

INDEX_FILE, PLAN_FILE, SWEEPS_FILE, SEQUENCES = "index.json", "plan.json", "sweeps.arrow", "sequences"

StoreKind = Literal["pairs", "labelled"]
_READERS = {"pairs": "dataset=packed", "labelled": "dataset=packed_labelled"}
_CONTENTS = {"pairs": "pairs", "labelled": "labelled sweeps"}

SWEEPS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("timestamp", pa.float64()),
        ("num_points", pa.int64()),
        ("file", pa.int32()),
        ("row", pa.int32()),
        ("run", pa.int32()),
        ("position", pa.int32()),
        ("has_pose", pa.bool_()),
        ("is_target", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of sweeps of one sequence.

    Attributes:
        name: file name below `sequences/`.
        sequence: "dataset/sequence", as the sweeps' keys begin.
        num_bytes: size.
        hash: of the content.
    """

    name: str
    sequence: str
    num_bytes: int
    hash: str


@dataclass(frozen=True)
class PackedIndex:
    """The content of `index.json`.

    Attributes:
        root: folder of the store.
        kind: "pairs" (no box column exists) or "labelled".
        plan: what was packed and how: name, contract, class names, gap, box convention, the source's provenance.
        command: what made the store, to be run again.
        files: in order.
        sweeps_hash: of `sweeps.arrow`.
        num_sweeps: in it.
        faults: [key, reason] of the sweeps that could not be read.
    """

    root: Path
    kind: StoreKind
    plan: dict[str, Any]
    command: str
    files: list[PackedFile]
    sweeps_hash: str
    num_sweeps: int
    faults: list[list[str]]

    @property
    def hash(self) -> str:
        """Covers every byte that was packed, the keys and their order included."""
        return content_hash([SCHEMA_VERSION, self.kind, [file.hash for file in self.files], self.sweeps_hash])

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.plan["name"]

    @property
    def contract(self) -> SensorContract:
        """What the numbers mean."""
        contract = self.plan["contract"]
        return SensorContract(tuple(contract["channels"]), tuple(contract["scales"]), contract["frame"])

    @property
    def paths(self) -> list[Path]:
        """The files of sweeps."""
        return [self.root / SEQUENCES / file.name for file in self.files]

    def to_json(self) -> dict[str, Any]:
        """Return what `read_index` reads."""
        files = [[file.name, file.sequence, file.num_bytes, file.hash] for file in self.files]
        return {
            "version": SCHEMA_VERSION,
            "kind": self.kind,
            "hash": self.hash,
            "command": self.command,
            "plan": self.plan,
            "sweeps_hash": self.sweeps_hash,
            "num_sweeps": self.num_sweeps,
            "faults": self.faults,
            "files": files,
        }

    def summary(self) -> str:
        """Return how much there is, for the user."""
        size = size_text(sum(file.num_bytes for file in self.files))
        skipped = f", {len(self.faults)} faulty sweeps left out" if self.faults else ""
        return f"{self.num_sweeps} sweeps of {self.name} in {len(self.files)} file(s), {size}{skipped}"

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the store and what it was made from."""
        return {"store": self.hash, "schema_version": SCHEMA_VERSION, "source": self.plan["source"]}

    def sweeps(self) -> dict[str, NDArray[Any]]:
        """Return the columns of `sweeps.arrow`.

        Raises:
            ValueError: the file is missing or damaged.
        """
        path = self.root / SWEEPS_FILE
        try:
            content = path.read_bytes()
            table = pa.ipc.open_file(content).read_all()
            if hash_bytes(content) != self.sweeps_hash or table.schema != SWEEPS_SCHEMA:
                raise ValueError("its content is not what the index says")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be used ({error}); run `{self.command}` again to repair it") from None
        return {name: table.column(name).to_numpy() for name in SWEEPS_SCHEMA.names}


def hash_bytes(content: bytes) -> str:
    """Return the hash that names the content of a file."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None where the file is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def rebuild_command(content: dict[str, Any] | None, root: Path) -> str:
    """Return the command that makes a store anew, as its index or plan tells it."""
    general = f"python tools/prepare.py dataset=NAME dataset.root=DIR output={root}"
    return f"{(content or {}).get('command') or general} overwrite=true"


def check_version(content: dict[str, Any], path: Path, root: Path) -> None:
    """Raise ValueError where index or plan is of another schema version."""
    version = content.get("version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} is of schema version {version}, this version of equilidar reads {SCHEMA_VERSION}; rebuild it: "
            f"{rebuild_command(content, root)}"
        )


def read_index(root: Path, kind: StoreKind) -> PackedIndex:
    """Read the index of a finished store and look whether its files are whole.

    Args:
        root: folder of the store.
        kind: what the caller may read. A reader of pairs is refused a store with boxes.

    Raises:
        FileNotFoundError: no store, or one that is not finished.
        ValueError: another schema version or kind, a damaged index, a file that is missing or of another size.
    """
    require_folder(root, "packed store", "dataset.root")
    path = root / INDEX_FILE
    if not path.is_file():
        plan = read_json(root / PLAN_FILE)
        if plan is not None:
            raise FileNotFoundError(f"the store in {root} is not finished: run `{plan.get('command')}` again to go on")
        raise FileNotFoundError(f"no packed store in {root} (no {INDEX_FILE}); set dataset.root, or make one: "
                                f"python tools/prepare.py dataset=NAME dataset.root=DIR output={root}")  # fmt: skip
    content = read_json(path)
    if content is None:
        raise ValueError(f"{path} is damaged; rebuild the store: {rebuild_command(read_json(root / PLAN_FILE), root)}")
    check_version(content, path, root)
    try:
        files = [PackedFile(*file) for file in content["files"]]
        stamp = content["sweeps_hash"], content["num_sweeps"], content["faults"]
        index = PackedIndex(root, content["kind"], content["plan"], content["command"], files, *stamp)
        is_whole = content["hash"] == index.hash
    except (KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path} is damaged or was edited; rebuild the store: {rebuild_command(content, root)}")
    if index.kind != kind:
        raise ValueError(
            f"{root} is a store of {_CONTENTS[index.kind]}, not of {_CONTENTS[kind]}: read it by "
            f"{_READERS[index.kind]}, or pack a dataset of {_CONTENTS[kind]} (pretraining reads no store with boxes)"
        )
    for file, target in zip(files, index.paths, strict=True):
        size = target.stat().st_size if target.is_file() else None
        if size != file.num_bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {file.num_bytes}"
            raise ValueError(f"{target} {found}; run `{index.command}` again to repair it")
    return index
