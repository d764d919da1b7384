"""`ecg-jepa sweep` as a script, for `accelerate launch training/sweep.py` and `python training/sweep.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("sweep", __file__)


if __name__ == "__main__":
    main()
