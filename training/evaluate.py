"""`ecg-jepa evaluate` as a script, for `accelerate launch training/evaluate.py` and `python training/evaluate.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("evaluate", __file__)


if __name__ == "__main__":
    main()
