"""`ecg-jepa benchmark` as a script, for `python training/benchmark.py`; each variant is a process of its own."""

from ecg_jepa.commands import run_script


def main() -> None:
    run_script("benchmark", __file__)


if __name__ == "__main__":
    main()
