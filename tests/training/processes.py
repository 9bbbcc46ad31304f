"""Programs that tests run in other processes."""

import os
import socket
import subprocess


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_together(commands, environments):
    """Run commands at the same time; return what each printed. All of them must succeed."""
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    outputs = [process.communicate(timeout=540)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]
    return outputs


def run_in_two_processes(command):
    """Run a command in two processes that find each other, without a launcher."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    return run_together([command] * 2, [address | {"RANK": str(rank)} for rank in range(2)])
