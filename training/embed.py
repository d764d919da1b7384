"""`ecg-jepa embed` as a script, for `accelerate launch training/embed.py` and `python training/embed.py`."""

from ecg_jepa.cli import run_script


def main() -> None:
    run_script("embed", __file__)


if __name__ == "__main__":
    main()
