"""nnU-Net's variables and folders, where trainers are found, shared memory, worker processes."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nnunetv2_spmc.common.nnunet_folders import PREPROCESSED, RAW, RESULTS, folder_if_set
from nnunetv2_spmc.doctor.finding import Finding, Severity, raised

FOLDERS = (RAW, PREPROCESSED, RESULTS)
TRAINER_VARIABLE = "nnUNet_extTrainer"
TRAINER = "nnUNetTrainerSPMC"
SET_TRAINERS = 'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"'
SHARED_MEMORY = Path("/dev/shm")
GIB = 1 << 30
SHARED_GIB, FREE_GIB, LEAST_FREE_GIB = 1, 10, 1
USED_FOR = {  # what a folder is needed for
    RAW: "for scans and labels",
    PREPROCESSED: "for plans and preprocessed cases",
    RESULTS: "for trained models",
}


def check_folder(variable: str) -> Iterator[Finding]:
    """Look whether one of nnU-Net's folders is set, there, writable, and has room."""
    severity: Severity
    folder = folder_if_set(variable)
    if folder is None:
        what = f"{variable} is not set; nnU-Net needs it {USED_FOR[variable]}."
        yield Finding(variable, "error", what, command=f"export {variable}=/path/to/{variable}")
        return
    if not folder.is_dir():
        if os.path.lexists(folder):
            advice = "Remove it, or let the variable name a folder."
            yield Finding(variable, "error", f"{folder} is not a folder.", advice=advice)
            return
        severity = "note" if variable == RESULTS else "error"  # nnU-Net makes it
        make = f"mkdir -p {shlex.quote(str(folder))}"
        yield Finding(variable, severity, f"{folder} does not exist.", command=make)
        return
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        severity = "note" if variable == RAW else "error"  # only a conversion writes there
        what = f"{folder} cannot be written to ({error.strerror or error})."
        shown = f"ls -ld {shlex.quote(str(folder))}"
        yield Finding(variable, severity, what, advice="Change its owner or mode.", command=shown)
        return
    free = shutil.disk_usage(folder).free / GIB
    if free < FREE_GIB:
        severity = "error" if free < LEAST_FREE_GIB and variable != RAW else "warning"
        what = f"{folder} has {free:.1f} GiB left."
        room = f"df -h {shlex.quote(str(folder))}"
        yield Finding(variable, severity, what, advice="Make room on its disk.", command=room)
        return
    yield Finding(variable, "ok", f"{folder}, {free:.0f} GiB free.")


def check_trainer_variable() -> Iterator[Finding]:
    """Look what nnUNet_extTrainer names, and whether nnU-Net finds our trainer there."""
    value = os.environ.get(TRAINER_VARIABLE, "")
    if not value:
        yield Finding(
            TRAINER_VARIABLE,
            "warning",
            f"{TRAINER_VARIABLE} is not set, so nnUNetv2_train and nnUNetv2_predict do not find "
            f"{TRAINER}; nnUNetv2_spmc_train does.",
            command=SET_TRAINERS,
        )
        return
    for folder in filter(None, value.split(os.pathsep)):
        if not Path(folder).is_dir():
            what = f"{TRAINER_VARIABLE} names {folder}, which is not a folder."
            yield Finding(TRAINER_VARIABLE, "error", what, command=SET_TRAINERS)
    try:
        found = _found_trainer()
    except Exception as error:  # it imports every trainer there is
        yield Finding(
            TRAINER_VARIABLE,
            "error",
            f"nnU-Net cannot find {TRAINER} by {TRAINER_VARIABLE}={value} ({raised(error)}).",
            advice="If this names a package, install that again; otherwise:",
            command=SET_TRAINERS,
        )
        return
    yield Finding(TRAINER_VARIABLE, "ok", f"{value}: nnU-Net finds {found}.")


def _found_trainer() -> str:
    """Return what nnU-Net finds under the name of our trainer."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    trainer = recursive_find_trainer_class_by_name(TRAINER)
    return f"{trainer.__module__}.{trainer.__qualname__}"


def check_shared_memory() -> Iterator[Finding]:
    """Look whether workers can hand over patches: containers have 64 MB by default."""
    if not SHARED_MEMORY.is_dir():
        yield Finding("shared memory", "ok", "This system has no /dev/shm to run out of.")
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    text = f"{SHARED_MEMORY} has {usage.total / GIB:.2g} GiB, {usage.free / GIB:.2g} GiB free"
    if usage.free < SHARED_GIB * GIB:
        yield Finding(
            "shared memory",
            "warning",
            f"{text}; workers that load patches may die of it.",
            advice="Give a container more, and remove what ended processes left there.",
            command="docker run --ipc=host ...",
        )
    else:
        yield Finding("shared memory", "ok", f"{text}.")


def check_workers() -> Iterator[Finding]:
    """Look at the two variables that say how many processes nnU-Net starts."""
    for variable, least in (("nnUNet_n_proc_DA", 0), ("nnUNet_def_n_proc", 1)):
        value, unset = os.environ.get(variable), f"unset {variable}"
        if value is None:
            yield Finding(variable, "ok", f"{variable} is not set: nnU-Net's default.")
        elif not value.strip().isdecimal() or int(value) < least:
            what = f"{variable}={value} must be a number from {least} on; nnU-Net fails with it."
            yield Finding(variable, "error", what, command=unset)
        elif int(value) == 0:
            yield Finding(
                variable,
                "warning",
                f"{variable}=0 is for trainings, which then load patches without worker processes, "
                "slowly. Planning (nnUNetv2_plan_and_preprocess) fails with it: set_num_threads "
                "expects a positive integer.",
                advice="Before you plan:",
                command=unset,
            )
        else:
            yield Finding(variable, "ok", f"{variable}={value}.")
