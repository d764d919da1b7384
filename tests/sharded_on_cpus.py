"""
Run a command of the package with weights shared out among processes on CPUs, which Accelerate does on accelerators alone. This is
all that is done otherwise: Accelerate is told that the processes are of the kind that shard.
"""

import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from ecg_jepa.cli import run_command

prepare_state = AcceleratorState.__init__


def prepare_state_to_shard(state, *args, fsdp_plugin=None, **options):
    """What Accelerate does on several GPUs."""
    was_there = state.initialized
    prepare_state(state, *args, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None and not was_there:
        if state._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(state._mixed_precision)
        state.fsdp_plugin = fsdp_plugin
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    AcceleratorState.__init__ = prepare_state_to_shard
    run_command(sys.argv[1], sys.argv[2:], "sharded")
