"""What grows in a long run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress
REPOSITORY = Path(__file__).parents[2]


def test_memory_and_handles_stay_flat_over_6000_steps(flags, tmp_path):
    words = flags(tmp_path / "run", max_steps=6000, logging_steps=500, save_steps=1000, batch_size=2, eval_steps=1000)
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, str(REPOSITORY / "training" / "pretrain.py"), *words]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    seen = {}
    for line in process.stderr:
        if (found := re.search(r"step (\d+)/6000: ", line)) and int(found[1]) >= 500:
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
            threads = int(re.search(r"Threads:\s+(\d+)", status)[1])
            seen[int(found[1])] = (memory, len(os.listdir(f"/proc/{process.pid}/fd")), threads)
    assert process.wait() == 0
    print({step: (f"{memory:.0f} MB", handles, threads) for step, (memory, handles, threads) in seen.items()})
    assert len(seen) >= 11
    early, late = seen[1500], seen[5500]
    assert late[0] < early[0] + 20, seen  # MB
    assert late[1:] == early[1:], seen
