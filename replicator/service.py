"""Supervises the links of one topology: a thread per link, a bounded number of target connections, a clean stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from replicator.worker import LinkReport, Worker

_STACK_BYTES = 512 * 1024
_CRASH_PAUSE = 30.0
_NUDGE = 0.2
_ROUNDS = 10


class Service:
    """Runs workers until stopped. A worker that ends by an error of ours (a bug) is reported, not hidden.

    Args:
        workers: one per link.
        crashed: called with a link's report and the error when a worker's thread ends unexpectedly.
    """

    def __init__(self, workers: Sequence[Worker], crashed: Callable[[LinkReport, Exception], None]) -> None:
        self._workers = workers
        self._crashed = crashed
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start all workers."""
        before = threading.stack_size(_STACK_BYTES)
        try:
            for worker in self._workers:
                thread = threading.Thread(target=self._work, args=(worker,), name=str(worker.report.link), daemon=True)
                thread.start()
                self._threads.append(thread)
        finally:
            threading.stack_size(before)

    def _work(self, worker: Worker) -> None:
        """An error that is not of our tree is a bug: said in full, and the link starts again after a pause."""
        while not self._stopping.is_set():
            try:
                worker.run()
            except Exception as error:
                self._crashed(worker.report, error)
                self._stopping.wait(_CRASH_PAUSE)

    def stop(self, seconds: float) -> bool:
        """Ask every worker to finish its batch; false when one is still at it after ``seconds``.

        Ending the process then is safe: an unfinished batch rolls back (invariant 3).
        """
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for worker in self._workers:
            worker.stop()
        while self._working() and time.monotonic() < deadline:
            for worker, thread in self._working():
                thread.join(min(max(deadline - time.monotonic(), 0.0), _NUDGE))
                worker.stop()  # again: it may have gone to sleep just when it was woken
        return not self._working()

    def _working(self) -> list[tuple[Worker, threading.Thread]]:
        return [each for each in zip(self._workers, self._threads, strict=False) if each[1].is_alive()]

    @property
    def alive(self) -> bool:
        """Whether every link has its thread."""
        return all(thread.is_alive() for thread in self._threads)

    def reports(self) -> list[LinkReport]:
        """What each worker is doing."""
        return [worker.report for worker in self._workers]


def drain_all(workers: Sequence[Worker], parallel: int) -> Iterator[tuple[Worker, Exception | None]]:
    """Drain every link, ``parallel`` at a time; each link with its error, or None, as it ends.

    Where sites get changes too, all links to the centre are drained before those from it, and all again until a whole round
    moved nothing: a row passed over because its site had just changed it is answered in the next round. Applications that
    never stop writing end it after a number of rounds. One link's error, a bug of ours included, does not keep the others
    from being drained.
    """
    rising = [worker for worker in workers if worker.report.link.direction.rises]
    falling = [worker for worker in workers if not worker.report.link.direction.rises]
    if not (rising and falling):
        yield from _drain_once(workers, parallel)
        return
    failed: set[Worker] = set()
    for _ in range(_ROUNDS):
        before = _moved(workers)
        for links in (rising, falling):
            for worker, failure in _drain_once([each for each in links if each not in failed], parallel):
                if failure is not None:
                    failed.add(worker)
                    yield worker, failure
        if _moved(workers) == before:
            break
    for worker in workers:
        if worker not in failed:
            yield worker, None


def _moved(workers: Sequence[Worker]) -> int:
    return sum(worker.report.batches + worker.report.healed for worker in workers)


def _drain_once(workers: Sequence[Worker], parallel: int) -> Iterator[tuple[Worker, Exception | None]]:
    turn = threading.Semaphore(parallel)
    ended: list[tuple[Worker, Exception | None]] = []
    news = threading.Condition()

    def drain(worker: Worker) -> None:
        failure: Exception | None = None
        try:
            with turn:
                worker.drain()
        except Exception as error:
            failure = error
        finally:
            with news:
                ended.append((worker, failure))
                news.notify()

    threads = [threading.Thread(target=drain, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    told = 0
    while told < len(threads):
        with news:
            news.wait_for(lambda: len(ended) > told)  # noqa: B023 - waits here, before ``told`` moves on
            fresh = ended[told:]
        told += len(fresh)
        yield from fresh
    for thread in threads:
        thread.join()
