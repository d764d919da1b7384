"""`python -m ecg_jepa.conversion IN.pt OUT_DIR ...` is `python -m ecg_jepa convert IN.pt OUT_DIR ...`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:1] = ["convert"]
    runpy.run_module("ecg_jepa", run_name="__main__")
