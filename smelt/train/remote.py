"""Checkpoints on another machine, through fsspec: sent and read back, listed, and fetched whole."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from smelt.errors import InputError
from smelt.files import MANIFEST, check_directory, read_json
from smelt.train.checkpoints import step_in

_AT_ONCE = 4  # files on their way at a time
_CHUNK = 2**22
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oci", "memory"}  # have no folders to make
_RECORDS = ("*.json", "*.jsonl", "*.yaml", "evals/*.json")


class Remote:
    """The folder `upload/RUN`, which holds the run's records and checkpoints.

    A checkpoint exists there when its manifest does, which is sent last. Raises InputError for a URL that cannot be
    understood; whatever goes wrong on the way is raised as the library at hand raises it.
    """

    def __init__(self, url: str, run: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise InputError("train.checkpoints.upload: needs fsspec; pip install 'smelt[remote]'") from None
        try:
            self._files, root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"train.checkpoints.upload: cannot use {url} ({error}); give a folder, or a URL such as "
                "s3://bucket/runs and pip install 'smelt[remote]'"
            ) from None
        protocol = self._files.protocol
        self._folders = not _BUCKETS & ({protocol} if isinstance(protocol, str) else set(protocol))
        self.url = f"{url.rstrip('/')}/{run}"
        self._root = f"{root.rstrip('/')}/{run}"
        self._verified: set[tuple[str, str]] = set()  # path and sha256 of what this process has read back

    def probe(self) -> None:
        """Write there, so that a run whose copies could never arrive does not start."""
        to = f"{self._root}/.probe"
        if self._folders:
            self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(to, b"smelt")
        with suppress(Exception):  # who may write need not be allowed to remove
            self._files.rm_file(to)

    def steps(self) -> list[int]:
        """Steps of the checkpoints there, oldest first."""
        self._files.invalidate_cache()
        found = self._files.glob(f"{self._root}/step-*/{MANIFEST}")
        steps = (step_in(PurePosixPath(path).parent.name) for path in found)
        return sorted(step for step in steps if step is not None)

    def send(self, checkpoint: Path) -> None:
        """Copy a checkpoint there, the manifest last, and read every file back.

        Files that are there already are not sent again. Raises InputError when the checkpoint here is damaged.
        """
        manifest = read_json(checkpoint / MANIFEST)
        there = f"{self._root}/{checkpoint.name}"
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            jobs = [
                pool.submit(self._send, checkpoint / name, f"{there}/{name}", entry)
                for name, entry in manifest["files"].items()
            ]
        try:
            for job in jobs:
                job.result()
        except _Differs:
            check_directory(checkpoint)
            raise
        text = (checkpoint / MANIFEST).read_bytes()
        entry = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        self._send(checkpoint / MANIFEST, f"{there}/{MANIFEST}", entry)

    def send_records(self, run: Path) -> None:
        """Copy the run's records there, as they are now."""
        for pattern in _RECORDS:
            for file in run.glob(pattern):
                self._put(file, f"{self._root}/{file.relative_to(run).as_posix()}")

    def _send(self, file: Path, to: str, entry: dict[str, Any]) -> None:
        key = to, entry["sha256"]
        if key in self._verified:
            return
        self._files.invalidate_cache()
        if not (
            self._files.exists(to) and self._files.size(to) == entry["bytes"] and self._hash(to) == entry["sha256"]
        ):
            self._put(file, to)
            if self._hash(to) != entry["sha256"]:
                raise _Differs(f"{to}: differs from what was sent")
        self._verified.add(key)

    def _put(self, file: Path, to: str) -> None:
        if self._folders:
            self._files.makedirs(to.rsplit("/", 1)[0], exist_ok=True)
        self._files.put_file(str(file), to)

    def _hash(self, path: str, into: Path | None = None) -> str:
        """sha256 of a file there as it is read, and on the way copied to `into`."""
        digest = hashlib.sha256()
        with self._files.open(path, "rb", block_size=_CHUNK, cache_type="readahead") as file:
            if into is None:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                with into.open("wb") as copy:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        copy.write(chunk)
        return digest.hexdigest()

    def read(self, step: int, name: str) -> bytes:
        """One small file of a checkpoint there."""
        content: bytes = self._files.cat_file(f"{self._root}/step-{step:08d}/{name}")
        return content

    def fetch(self, step: int, into: Path) -> None:
        """Copy a checkpoint into the folder `into`; InputError when a file is not what its manifest says."""
        there = f"{self._root}/step-{step:08d}"
        self._files.get_file(f"{there}/{MANIFEST}", str(into / MANIFEST))
        files = read_json(into / MANIFEST)["files"]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            digests = list(pool.map(lambda name: self._hash(f"{there}/{name}", into / name), files))
        for (name, entry), digest in zip(files.items(), digests, strict=True):
            if digest != entry["sha256"]:
                raise InputError(
                    f"{self.url}/step-{step:08d}/{name}: its contents differ from {MANIFEST}; remove it there"
                )

    def fetch_records(self, run: Path) -> None:
        """Copy the run's records here, where there are none."""
        self._files.invalidate_cache()
        for pattern in _RECORDS:
            for path in self._files.glob(f"{self._root}/{pattern}"):
                file = run / PurePosixPath(path).relative_to(self._root)
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    part = file.with_name(f"{file.name}.part")
                    self._files.get_file(path, str(part))
                    os.replace(part, file)


class _Differs(Exception):
    """A file read back is not the one that was sent."""
