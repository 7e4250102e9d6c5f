"""``python -m ops``: the operators' commands, gathered from the modules beside this one."""

import click

from ops.audit import audit
from ops.backup import backup, restore
from ops.keys import keys
from ops.networks import networks
from ops.parked import parked


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Operate the order processor.

    Settings come from the environment, as those of every process. To reach what `make run`
    started on this machine: make ops ARGS="parked list".
    """


main.add_command(audit)
main.add_command(backup)
main.add_command(keys)
main.add_command(networks)
main.add_command(parked)
main.add_command(restore)

if __name__ == "__main__":
    main(prog_name="python -m ops")
