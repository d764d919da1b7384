"""`ecg-jepa finetune` as a script, for `accelerate launch training/finetune.py` and `python training/finetune.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("finetune", __file__)


if __name__ == "__main__":
    main()
