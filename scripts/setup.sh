# Sourced by demo.sh and test.sh: a Python environment with this package, made once and reused.
# SPMC_VENV names another place for it; PYTHON the interpreter to make it with.

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
environment="${SPMC_VENV:-$repository/.venv}"

say() { printf '\n=== %s\n' "$*"; }

if [ ! -x "$environment/bin/python" ]; then
    say "Creating a Python environment in $environment"
    "${PYTHON:-python3}" -m venv "$environment"
fi
# on a busy machine OpenMP threads that spin while waiting slow everything down many times
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
export PATH="$environment/bin:$PATH"
unset PYTHONPATH

# what the environment was last set up from; changes when pyproject.toml or the clone does
wanted="$repository $(cksum < "$repository/pyproject.toml")"
if [ "$(cat "$environment/.spmc-setup" 2>/dev/null)" != "$wanted" ]; then
    say "Installing nnunetv2-spmc and nnU-Net (the first time 6 GB, some minutes)"
    python -m pip install --quiet --disable-pip-version-check --editable "$repository[dev,docs]"
    printf '%s' "$wanted" > "$environment/.spmc-setup"
fi
