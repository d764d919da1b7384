"""`python -m ecg_jepa COMMAND ...`"""

from .cli import main

if __name__ == "__main__":
    main()
