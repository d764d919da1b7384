"""`ecg-jepa pretrain` as a script, for `accelerate launch training/pretrain.py` and `python training/pretrain.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("pretrain", __file__)


if __name__ == "__main__":
    main()
