"""Many scans at once."""

import threading

import pytest
import torch

from cohorts.pool import Batched, in_threads, threads_for
from networks.forward import Forward
from tests.small_networks import SMALL, small
from tests.support import until


def test_all_are_worked_on_and_never_more_in_hand_than_threads():
    guard, now, most, drawn = threading.Lock(), [0], [0], [0]
    barrier = threading.Barrier(3)

    def work(item):
        with guard:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if item < 3:
            barrier.wait(60)  # three are at work together
        assert torch.get_num_threads() == 1
        with guard:
            now[0] -= 1
        return item * item

    def items():
        for item in range(50):
            drawn[0] += 1
            yield item

    got = []
    for answer in in_threads(work, items(), 3):
        got.append(answer)
        assert drawn[0] <= len(got) + 5  # the list is not read ahead
    assert sorted(got) == [item * item for item in range(50)] and most[0] == 3


def test_what_a_scan_raises_ends_it_once_those_in_hand_are_done():
    seen = []

    def work(item):
        seen.append(item)
        if item == 4:
            raise OSError("disk")
        return item

    with pytest.raises(OSError, match="disk"):
        list(in_threads(work, iter(range(1000)), 2))
    assert len(seen) < 20


def test_there_is_a_scan_in_hand_for_each_core_and_on_a_gpu_a_batch_more():
    cores = threads_for(torch.device("cpu")) - 1
    assert cores >= 1 and threads_for(torch.device("cuda"), 5) == cores + 5


FAR = {
    "fp32": {"rtol": 1e-4, "atol": 1e-4},
    "bf16": {"rtol": 0.1, "atol": 0.05},
    "fp16": {"rtol": 0.02, "atol": 5e-3},
}


@pytest.mark.parametrize("precision", list(FAR))
def test_threads_that_ask_at_once_share_a_pass_and_each_gets_its_own_answer(monkeypatch, precision):
    torch.manual_seed(0)
    forward, sizes = Forward(small()), []
    alone = Forward(small())
    forward.folded, forward.precision = None, precision  # a card's way: plain modules in what was chosen
    first, gathered = threading.Event(), threading.Event()
    base = Forward.base

    def slow(self, x):
        sizes.append(len(x))
        if len(sizes) == 1:
            first.set()
            gathered.wait(60)
        return base(self, x)

    monkeypatch.setattr(Forward, "base", slow)
    batched = Batched(forward, 3)
    torch.manual_seed(1)
    inputs = [torch.randn(1, 1, *SMALL) for _ in range(6)]
    answers: dict[int, torch.Tensor] = {}

    def ask(number):
        answers[number] = batched(inputs[number])[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    threads[0].start()
    first.wait(60)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(batched._waiting) == 5)
    gathered.set()
    for thread in threads:
        thread.join(60)
    assert sizes == [1, 3, 2]
    monkeypatch.undo()
    for number, x in enumerate(inputs):
        torch.testing.assert_close(answers[number], forward(x)[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(answers[number], alone(x)[0], **FAR[precision])


def test_each_of_a_batch_is_told_what_went_wrong(monkeypatch):
    def broken(self, x):
        raise RuntimeError("CUDA out of memory")

    batched = Batched(Forward(small()))
    monkeypatch.setattr(Forward, "base", broken)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            batched.base(torch.zeros(1, 1, *SMALL))
