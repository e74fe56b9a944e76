"""What the ranks of a run agree on beside the training step: a failure of one becomes the failure of all."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from smelt.errors import Elsewhere, InputError

_PATIENCE = timedelta(hours=2)  # the slowest rank's writing, with room for a disk that hangs

T = TypeVar("T")


class Ranks(Protocol):
    """Which of how many processes this is."""

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...


class Together:
    """Exchanges small values over a gloo group of its own, which never mixes with the collectives of training.

    All ranks make one, at the same moment; one process needs no group.
    """

    def __init__(self, world: Ranks) -> None:
        self.rank, self.ranks = world.rank, world.ranks
        self._group: Any = None
        if self.ranks > 1:
            import torch.distributed as dist

            self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order."""
        if self.ranks == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.ranks
        dist.all_gather_object(values, value, group=self._group)
        return values

    def each(self, work: Callable[[], T]) -> list[T]:
        """Do `work` on every rank and give all their results.

        When it fails anywhere it fails everywhere: with InputError for a user's mistake or a failing disk.
        """
        result: T | None = None
        mistake = failure = ""
        caught: Exception | None = None
        try:
            result = work()
        except (InputError, OSError) as error:
            mistake = str(error)
        except Exception as error:  # any other is a fault of ours, and must not leave the other ranks waiting
            caught, failure = error, repr(error)
        answers = self.gather((result, mistake, failure))
        for rank, (_, mistake, failure) in enumerate(answers):
            if mistake:
                raise InputError(mistake) if rank == self.rank else Elsewhere(mistake)
            if failure:
                raise RuntimeError(f"rank {rank}: {failure}") from caught
        return [answer for answer, _, _ in answers]  # type: ignore[misc]

    def first(self, work: Callable[[], T]) -> T:
        """Do `work` on the first rank, and give its result to all."""
        return self.each(lambda: work() if self.rank == 0 else None)[0]  # type: ignore[return-value]
