"""Every checkpoint of a run is copied elsewhere in the background, however long an outage lasts."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from smelt.errors import InputError
from smelt.files import MANIFEST, read_json, sha256, write_json
from smelt.train.checkpoints import checkpoints, step_of
from smelt.train.records import event
from smelt.train.remote import Remote
from smelt.train.retention import Retention

_SENT = "uploaded.json"
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0  # seconds between two tries in an outage, doubling
_PATIENCE = 900.0  # seconds of outage after which a finished run leaves without its last copies


class Uploader:
    """Sends whatever `RUN/uploaded.json` does not list, the newest checkpoint first, then lets retention know."""

    def __init__(self, remote: Remote, run: Path, retention: Retention, say: Callable[[str], None]) -> None:
        self._remote, self._run, self._retention, self._say = remote, run, retention, say
        known = read_json(run / _SENT) if (run / _SENT).is_file() else {}
        self._sent: dict[str, str] = known.get("checkpoints", {}) if known.get("url") == remote.url else {}
        self._damaged: set[Path] = set()
        self._news, self._closing = threading.Event(), threading.Event()
        self._failing_since: float | None = None
        self._reason = ""
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Begin to send, or look again for what is new."""
        self._news.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
            self._thread.start()

    @property
    def at_work(self) -> bool:
        """Whether it has begun to send."""
        return self._thread is not None

    def sent(self, path: Path) -> bool:
        """Whether a copy of this very checkpoint has been read back; of one that retention took, it has."""
        try:
            return path.name in self._sent and self._sent[path.name] == sha256(path / MANIFEST)
        except FileNotFoundError:
            return True

    def note(self, path: Path) -> None:
        """Remember that a checkpoint is there."""
        self._sent[path.name] = sha256(path / MANIFEST)
        write_json(self._run / _SENT, {"url": self._remote.url, "checkpoints": self._sent})

    def close(self, within: float | None = None) -> None:
        """Wait until all is sent, `within` seconds (None: as long as it goes on, with patience for an outage).

        InputError when something is left and there was no limit.
        """
        self._closing.set()
        self.wake()
        assert self._thread is not None
        self._thread.join(within)
        if left := self._pending():
            text = (
                f"train.checkpoints.upload: {len(left)} checkpoints are not yet at {self._remote.url}"
                f"{f' ({self._reason})' if self._reason else ''}; they are whole in {self._run / 'checkpoints'}: run "
                "the same command with --resume to send them"
            )
            if within is None:
                raise InputError(text)
            self._say(text)

    def _pending(self) -> list[Path]:
        return [path for path in checkpoints(self._run) if path not in self._damaged and not self.sent(path)]

    def _work(self) -> None:
        wait = _FIRST_WAIT
        while True:
            self._news.clear()
            try:
                pending = self._pending()
                well = not pending or self._send(pending[-1])
            except (OSError, InputError) as problem:  # of the disk here, which may have room by the next try
                pending, well = [], False
                if self._failed(problem):
                    self._say(f"uploading to {self._remote.url} failed ({self._reason}); trying again")
            if well:
                wait, self._failing_since, self._reason = _FIRST_WAIT, None, ""
            if pending and well:
                continue
            if self._closing.is_set() and (well or self._outage() > _PATIENCE):
                return
            self._news.wait(None if well else wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _failed(self, error: Exception) -> bool:
        """Remember why nothing is sent at the moment; whether that is news."""
        self._reason = str(error) or type(error).__name__
        news = self._failing_since is None
        if news:
            self._failing_since = time.monotonic()
        return news

    def _outage(self) -> float:
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def _send(self, path: Path) -> bool:
        """Copy a checkpoint, unless it is damaged; False where that failed and is worth another try."""
        start = time.monotonic()
        try:
            self._remote.send(path)
            self._remote.send_records(self._run)
        except InputError as problem:
            self._damaged.add(path)
            self._tell(path, f"not uploaded: {problem}")
        except Exception as error:  # each file system has errors of its own, and an outage must not end the run
            if self._failed(error):
                self._tell(
                    path, f"the upload of {path.name} to {self._remote.url} failed ({self._reason}); trying again"
                )
            return False
        else:
            seconds = round(time.monotonic() - start, 3)
            self.note(path)
            self._retention.prune(self.sent)
            event(self._run, "upload", step=step_of(path), url=self._remote.url, upload_seconds=seconds)
        return True

    def _tell(self, path: Path, reason: str) -> None:
        self._say(reason)
        event(self._run, "upload_failed", step=step_of(path), reason=reason)
