"""`ecg-jepa predict` as a script, for `accelerate launch training/predict.py` and `python training/predict.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("predict", __file__)


if __name__ == "__main__":
    main()
