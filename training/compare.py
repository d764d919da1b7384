"""`ecg-jepa compare` as a script, for `python training/compare.py`; its runs are processes of their own."""

from ecg_jepa.commands import run_script


def main() -> None:
    run_script("compare", __file__)


if __name__ == "__main__":
    main()
