"""`ecg-jepa push` as a script, for `accelerate launch training/push_to_hub.py` and `python training/push_to_hub.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("push", __file__)


if __name__ == "__main__":
    main()
