"""Workers that say which case they had."""

from __future__ import annotations

import os
import signal
import time

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.loading.paired_loader import started
from nnunetv2_spmc.loading.watched import WatchedDataset


class Dataset:
    """Cases of which one takes its time, and one ends the process that loads it."""

    identifiers = ("first", "slow", "fatal")
    source_folder = "somewhere"

    def load_case(self, name):
        if name == "slow":
            time.sleep(60)
        if name == "fatal":
            os._exit(7)
        return name


class Loader:
    def __init__(self, *cases):
        self.cases = list(cases)
        self.dataset = WatchedDataset(Dataset(), "unlabeled", "some command")

    def set_thread_id(self, number):
        pass

    def __next__(self):
        return {"case": self.dataset.load_case(self.cases.pop(0))}


def test_a_worker_that_is_killed_says_which_case_it_had(capfd):
    workers, _ = started(Loader("first", "slow"), [None], num_cached=1, pin_memory=False)
    while b"slow" not in workers.places[0].value:
        assert workers._processes[0].is_alive()
        time.sleep(0.01)
    os.kill(workers._processes[0].pid, signal.SIGKILL)
    sentence = "was ended by SIGKILL while it had the unlabeled case slow.*nnUNet_n_proc_DA"
    with pytest.raises(DataError, match=sentence):
        next(workers)
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_a_library_ends_says_which_case_it_had(capfd):
    sentence = "ended with status 7 while it had the unlabeled case fatal; --c goes on"
    with pytest.raises(DataError, match=sentence):
        started(Loader("fatal"), [None], num_cached=1, pin_memory=False)
    assert "Traceback" not in capfd.readouterr().err
