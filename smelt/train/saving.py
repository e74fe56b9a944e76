"""Saving while training goes on: tensors are copied to host memory, from which a thread writes the files.

Every rank writes its own files; the first one writes the manifest when all of them are whole.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smelt.errors import InputError
from smelt.files import MANIFEST, disk_errors, sha256, sync, write_json
from smelt.parallel.boxes import boxes
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.train.checkpoints import MODEL, OPTIMIZER, Snapshot, checkpoint_path
from smelt.train.finding import Accept, Finder
from smelt.train.records import event
from smelt.train.remote import Remote
from smelt.train.retention import Retention
from smelt.train.storage import Plan, StagedFile, Tensors, file_name, make_plan
from smelt.train.together import Ranks, Together
from smelt.train.uploading import Uploader

_LEAVING = 20.0  # seconds that a run which is asked to stop gives to its uploads


class Saver:
    """Saves the checkpoints of `run`, at most one at a time, keeps those the section says, and uploads them.

    All ranks make one and call its methods at the same steps. `saved(path)` is called on the first rank, in the
    background, when a checkpoint is whole.
    """

    def __init__(
        self,
        run: Path,
        section: Checkpoints,
        world: Ranks,
        say: Callable[[str], None] = lambda text: None,
        saved: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._run, self._say, self._saved = run, say, saved
        self._ranks = Together(world)
        self._first = world.rank == 0
        self._retention = Retention(run, section)
        self._remote = Remote(section.upload, run.name) if section.upload and self._first else None
        self._uploader = Uploader(self._remote, run, self._retention, say) if self._remote else None
        self._plan: tuple[Any, Plan] | None = None
        self._files: dict[str, StagedFile] = {}
        self._copied: torch.cuda.Event | None = None
        self._writing: threading.Thread | None = None
        self._failure: Exception | None = None

    def newest(self, accept: Accept = lambda recipe, step: True) -> Path | None:
        """The newest whole checkpoint, fetched from where it was uploaded if it is not here; None if there is none.

        `accept` is asked with the recipe and the step of each. Damaged ones are passed over with a warning.
        """
        if self._first:
            self._retention.clear_unfinished()
        return self._finder(accept).newest()

    def fetch_records(self) -> None:
        """Bring here the records of a run that was uploaded and is not here; InputError where that cannot be read."""
        self._finder(lambda recipe, step: True).records()

    def _finder(self, accept: Accept) -> Finder:
        return Finder(self._run, self._ranks, self._retention, self._remote, self._uploader, self._say, accept)

    def taken(self) -> bool:
        """Whether checkpoints of a run of this name have been uploaded already; InputError if none ever could be."""

        def there() -> bool:
            if self._remote is None:
                return False
            try:
                self._remote.probe()
                return bool(self._remote.steps())
            except Exception as error:  # each file system has errors of its own
                raise InputError(
                    f"train.checkpoints.upload: {self._remote.url} cannot be used ({error}); mend the name, the "
                    "credentials or the connection"
                ) from None

        return self._ranks.first(there)

    def save(self, snapshot: Snapshot, **facts: Any) -> float:
        """Begin to save; returns the seconds that training waited, for the save before this one and for the copies.

        A full or failing disk is told and put into the events with the step; the run goes on and tries again at its
        next save. `facts` go into the event of the checkpoint.
        """
        start = time.perf_counter()
        self._settle(failing=False)
        tensors = {MODEL: snapshot.parameters, OPTIMIZER: snapshot.state}
        plan = self._planned(tensors)
        self._stage(tensors)
        stalled = time.perf_counter() - start
        facts = {"checkpoint_seconds": round(stalled, 3), **facts}
        job = replace(snapshot, at=replace(snapshot.at), parameters={}, state={}), plan, facts
        self._writing = threading.Thread(target=self._write, args=job, name="checkpoint", daemon=True)
        self._writing.start()
        return stalled

    def wait(self) -> None:
        """Wait until the save in hand has ended, well or not."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def before_update(self) -> None:
        """Call before parameters or state change: on CUDA, copies still under way are waited for, by the device."""
        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)

    def hold(self, path: Path) -> None:
        """Keep a checkpoint while someone reads it."""
        self._retention.hold(path)

    def release(self, path: Path) -> None:
        """Undo one `hold`."""
        self._retention.release(path)

    def close(self, done: bool) -> None:
        """Wait for the save in hand and, when the run is `done`, for the uploads; InputError if they failed."""
        try:
            self._settle(failing=True)
        finally:
            for file in self._files.values():
                file.close()
            if self._uploader is not None and (done or self._uploader.at_work):
                self._uploader.close(None if done else _LEAVING)

    def _settle(self, failing: bool) -> None:
        """Wait for the save in hand, and raise what went wrong in it, a failing disk only if `failing`."""
        self.wait()
        failure, self._failure = self._failure, None
        if failure is not None and (failing or not isinstance(failure, InputError)):
            raise failure

    def _planned(self, tensors: Tensors) -> Plan:
        """Who writes what: worked out anew when any rank's tensors are laid out otherwise than at the last save."""
        key = [
            (stem, name, tensor.dtype, tensor.shape, getattr(tensor, "placements", None))
            for stem, group in tensors.items()
            for name, tensor in group.items()
        ]
        known = self._plan is not None and self._plan[0] == key
        if not all(self._ranks.gather(known)):
            plan = make_plan(tensors, self._ranks.rank, self._ranks.gather)
            self._plan = key, plan
            for file in self._files.values():
                file.close()
            cuda = any(tensor.is_cuda for group in tensors.values() for tensor in group.values())
            self._files = {stem: StagedFile(parts, pinned=cuda) for stem, parts in plan.parts.items() if parts}
        assert self._plan is not None
        return self._plan[1]

    @torch.no_grad()
    def _stage(self, tensors: Tensors) -> None:
        """Copy this rank's share to host memory; on CUDA, on a stream of its own that nothing here waits for."""
        cuda = next((each.device for each in tensors[MODEL].values() if each.is_cuda), None)
        if cuda is None:
            self._copy(tensors)
            return
        stream = torch.cuda.Stream(cuda)
        stream.wait_stream(torch.cuda.current_stream(cuda))
        with torch.cuda.stream(stream):
            self._copy(tensors)
        self._copied = stream.record_event()

    def _copy(self, tensors: Tensors) -> None:
        for stem, file in self._files.items():
            for name in {name: None for name, _ in file.places}:
                for box, part in boxes(tensors[stem][name]):
                    place = file.places.get((name, box))
                    if place is not None:
                        place.copy_(part, non_blocking=True)

    def _write(self, snapshot: Snapshot, plan: Plan, facts: Mapping[str, Any]) -> None:
        """In the background: write, then tell the records, retention and uploads."""
        _yield_to_training()
        start, at = time.perf_counter(), snapshot.at
        path = checkpoint_path(self._run, at.step)
        try:
            if self._copied is not None:
                self._copied.synchronize()
            self._write_whole(path, snapshot, plan)
            if self._first:
                seconds = round(time.perf_counter() - start, 3)
                event(self._run, "checkpoint", step=at.step, write_seconds=seconds, **facts)
                self._saved(path)
                self._retention.prune(self._uploader.sent if self._uploader else lambda path: True)
                if self._uploader:
                    self._uploader.wake()
        except Exception as error:
            self._failure = error
            if self._first and isinstance(error, InputError):
                self._say(f"the checkpoint of step {at.step} was not saved: {error}")
                with suppress(InputError):  # the disk that has no room for a checkpoint may have none for this line
                    event(self._run, "checkpoint_failed", step=at.step, reason=str(error))

    def _write_whole(self, path: Path, snapshot: Snapshot, plan: Plan) -> None:
        """Write the checkpoint, which appears at `path` whole or not at all."""
        ranks = self._ranks
        with ExitStack() as unfinished:
            folder = ranks.first(lambda: str(unfinished.enter_context(self._retention.replacing(path))))
            written = ranks.each(lambda: self._write_files(Path(folder)))

            def finish() -> None:
                with disk_errors(path):
                    facts = {"kind": "checkpoint", "step": snapshot.at.step, "life": snapshot.at.life}
                    _complete(Path(folder), snapshot, plan, facts, {k: v for each in written for k, v in each.items()})
                    unfinished.close()
                    sync(path.parent)

            ranks.first(finish)

    def _write_files(self, folder: Path) -> dict[str, Any]:
        """Write this rank's tensors; their entries in the manifest."""
        entries = {}
        for stem, file in self._files.items():
            name = file_name(stem, self._ranks.rank, self._ranks.ranks)
            with disk_errors(folder / name):
                entries[name] = file.write(folder / name)
        return entries


def _complete(folder: Path, snapshot: Snapshot, plan: Plan, facts: Mapping[str, Any], entries: dict[str, Any]) -> None:
    """Add what the ranks' files lack, and the manifest."""
    for name, entry in entries.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != entry["bytes"]:
            raise InputError(
                f"{folder / name}: another rank wrote it, and it is not here; put the project on a disk that all nodes "
                "share (--project)"
            )
    snapshot.write_facts(folder)
    for name, index in plan.indexes.items():
        write_json(folder / name, index)
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in entries:
            sync(file)
            entries[name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    write_json(folder / MANIFEST, {**facts, "files": dict(sorted(entries.items()))})


def _yield_to_training() -> None:
    """Let this thread wait for a core that the training step does not want."""
    with suppress(AttributeError, OSError):  # Linux alone has priorities by thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
