"""nnUNetv2_spmc_doctor: what is wrong with this installation or a dataset, and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command
from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.training.devices import DEVICES

STDOUT = "-"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="nnUNetv2_spmc_doctor",
        description="Say what is wrong with this installation and what to do. With -d, also check "
        "a dataset: leaks, sites, damaged files, folds, and the memory and time of a training. The "
        "doctor changes nothing; it keeps what it read from the scans next to the plans, as "
        "preprocessing does. The exit status is 1 if there is an error, and 0 if there is nothing "
        "worse than a warning.",
        example="nnUNetv2_spmc_doctor\nnnUNetv2_spmc_doctor -d 510 --html doctor.html",
    )
    add = parser.add_argument
    add("-d", metavar="ID", help="dataset id or name")
    text = "configurations (default: all whose labeled cases are preprocessed)"
    add("-c", nargs="+", default=[], metavar="CONFIG", help=text)
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: %(default)s)")
    text = "where the training will run (default: the GPU if there is one)"
    add("-device", choices=DEVICES, default="", help=text)
    processes = min(4, usable_cores())
    text = "processes that open files; 0: no worker processes (default: %(default)s)"
    add("-np", type=int, default=processes, metavar="N", help=text)
    text = "write JSON into FILE; without FILE, print JSON instead of the table"
    add("--json", nargs="?", const=STDOUT, metavar="FILE", help=text)
    text = "also write a page with pictures of labeled and unlabeled scans"
    add("--html", type=Path, metavar="FILE", help=text)
    add("--no_pbar", action="store_true", help="no progress bar")
    return parser


@command("nothing was changed")
def main(argv: Sequence[str] | None = None) -> int | None:
    """Examine, then show what was found; return 1 if there is an error."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.np < 0:
        parser.error(f"-np must be at least 0, got {arguments.np}")
    if arguments.c and not arguments.d:
        parser.error("-c needs a dataset: -d ID")
    json_file = None if arguments.json in (None, STDOUT) else Path(arguments.json)
    for file in filter(None, (json_file, arguments.html)):
        if file.is_dir():
            parser.error(f"{file} is a folder; name a file in it")
    from nnunetv2_spmc.common.whole_file import made_folder, refuse_another_file, whole_file
    from nnunetv2_spmc.doctor.examination import Question, examine
    from nnunetv2_spmc.doctor.finding import worst
    from nnunetv2_spmc.doctor.text import as_json, as_text

    if arguments.html:
        refuse_another_file(arguments.html, "<!doctype html>", "page")
        parser.check_page(arguments.html)
    if json_file:
        refuse_another_file(json_file, "{", "JSON file")
    question = None
    if arguments.d:
        question = Question(
            arguments.d,
            arguments.c,
            arguments.p,
            arguments.device,
            arguments.np,
            show_progress=not arguments.no_pbar,
        )
    examination = examine(question)
    if arguments.json == STDOUT:
        print(as_json(examination))
    else:
        print(as_text(examination, shutil.get_terminal_size().columns))
    if json_file:
        with made_folder(json_file.parent), whole_file(json_file) as temporary:
            temporary.write_text(as_json(examination) + "\n", encoding="utf-8")
    if arguments.html:
        from nnunetv2_spmc.doctor.page import write_page

        write_page(examination, arguments.html)
    return 1 if worst(examination.findings) == "error" else None


if __name__ == "__main__":
    main()
