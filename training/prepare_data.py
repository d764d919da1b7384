"""`ecg-jepa prepare` as a script, for `accelerate launch training/prepare_data.py` and `python training/prepare_data.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("prepare", __file__)


if __name__ == "__main__":
    main()
