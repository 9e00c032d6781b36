"""The models in memory: each is loaded once, shared, bounded, and unloaded when nobody uses it."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest

from edged.engine.background_worker import InlineExecutor
from edged.errors import ModelError
from edged.models.pool import ModelPool, ModelsInUseError


def models(name: str) -> Any:
    return SimpleNamespace(name=name, recogniser=object())


class Rig:
    """A pool whose loads are recorded."""

    def __init__(self, max_models: int = 2, executor: Executor | None = None) -> None:
        self.loaded: list[str] = []
        self.now = 0.0
        self.error: Exception | None = None
        self.pool = ModelPool(
            models("tiny-en"),
            self._load,
            executor or InlineExecutor(),
            max_models,
            idle_s=300,
            clock=lambda: self.now,
        )

    def _load(self, name: str, beside: Any) -> Any:
        assert beside is self.pool.main
        self.loaded.append(name)
        if self.error is not None:
            raise self.error
        return models(name)


def test_the_models_in_memory_are_shared_and_others_are_loaded_once() -> None:
    rig = Rig()
    first, second = rig.pool.lease("tiny-en"), rig.pool.lease("tiny-en")
    assert first is not None
    assert second is not None
    assert first.models is second.models is rig.pool.main
    assert rig.pool.lease("whisper") is None
    rig.pool.load("whisper").result(0)
    one, two = rig.pool.lease("whisper"), rig.pool.lease("whisper")
    assert one is not None
    assert two is not None
    assert one.models is two.models
    assert rig.loaded == ["whisper"]
    assert list(rig.pool.names) == ["tiny-en", "whisper"]


class Slow(Executor):
    """Does its jobs when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[Any] = Future()
        self.jobs.append((future, fn, args))
        return future

    def run(self) -> None:
        for future, fn, args in self.jobs:
            future.set_result(fn(*args))
        self.jobs.clear()


def test_two_streams_that_need_a_model_at_the_same_time_wait_for_one_load() -> None:
    slow = Slow()
    rig = Rig(executor=slow)
    assert rig.pool.load("whisper") is rig.pool.load("whisper")
    with pytest.raises(ModelsInUseError, match=r"all 2 models .*EDGED_MAX_MODELS"):
        rig.pool.load("other")
    slow.run()
    assert rig.loaded == ["whisper"]


def test_more_models_than_allowed_are_refused_unless_one_is_idle() -> None:
    rig = Rig()
    rig.pool.load("whisper").result(0)
    lease = rig.pool.lease("whisper")
    assert lease is not None
    with pytest.raises(ModelsInUseError):
        rig.pool.load("german")
    lease.release()
    lease.release()  # once is enough
    rig.pool.load("german").result(0)
    assert list(rig.pool.names) == ["tiny-en", "german"]


def test_the_one_that_has_been_idle_longest_makes_room() -> None:
    rig = Rig(max_models=3)
    for at, name in enumerate(("whisper", "german")):
        rig.now = at
        rig.pool.load(name).result(0)
    rig.pool.load("french").result(0)
    assert list(rig.pool.names) == ["tiny-en", "german", "french"]


def test_idle_models_are_unloaded_after_a_time_and_used_ones_are_not() -> None:
    rig = Rig(max_models=3)
    rig.pool.load("whisper").result(0)
    rig.pool.load("german").result(0)
    lease = rig.pool.lease("german")
    assert lease is not None
    rig.now = 300
    rig.pool.sweep()
    assert list(rig.pool.names) == ["tiny-en", "german"]
    lease.release()
    rig.now = 599
    rig.pool.sweep()
    assert list(rig.pool.names) == ["tiny-en", "german"]
    rig.now = 600
    rig.pool.sweep()
    assert list(rig.pool.names) == ["tiny-en"]


def test_a_failed_load_is_reported_and_tried_again_by_the_next_stream() -> None:
    rig = Rig()
    rig.error = ModelError("the file is damaged")
    assert isinstance(rig.pool.load("whisper").exception(0), ModelError)
    rig.error = None
    assert rig.pool.load("whisper").result(0) is None
    assert rig.loaded == ["whisper", "whisper"]


def test_streams_keep_the_models_that_the_microphone_gives_up() -> None:
    rig = Rig()
    before = rig.pool.main
    lease = rig.pool.lease("tiny-en")
    assert lease is not None
    rig.pool.set_main(models("whisper"))
    again = rig.pool.lease("tiny-en")
    assert again is not None
    assert again.models is before
    lease.release()
    again.release()
    rig.now = 300
    rig.pool.sweep()
    assert list(rig.pool.names) == ["whisper"]


def test_models_that_no_stream_uses_are_gone_when_the_microphone_gives_them_up() -> None:
    rig = Rig()
    rig.pool.set_main(models("whisper"))
    assert list(rig.pool.names) == ["whisper"]


def test_the_microphone_takes_over_a_model_that_streams_use() -> None:
    rig = Rig()
    rig.pool.load("whisper").result(0)
    lease = rig.pool.lease("whisper")
    assert lease is not None
    rig.pool.set_main(lease.models)
    assert list(rig.pool.names) == ["whisper"]
    rig.pool.set_main(models("tiny-en"))
    assert list(rig.pool.names) == ["tiny-en", "whisper"], "the stream still uses it"
    lease.release()
    rig.now = 300
    rig.pool.sweep()
    assert list(rig.pool.names) == ["tiny-en"]
