"""
Publish a trained model on the Hugging Face Hub: private unless --public.

    python training/push_to_hub.py DIR --repo_id ORG/NAME [--public] [--dry_run]
"""

import argparse

from ecg_jepa.arguments import inputs_of
from ecg_jepa.hub import PushError, describe, publishable_files, push


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="of an encoder or a classifier, as pretrain.py and finetune.py write it")
    parser.add_argument("--repo_id", required=True, metavar="ORG/NAME", help="repository; it is created if it is not there")
    parser.add_argument("--public", action="store_true", help="for everybody to see")
    parser.add_argument("--dry_run", action="store_true", help="only list what would go")
    arguments = parser.parse_args()
    with inputs_of("push_to_hub.py"):
        files = publishable_files(arguments.directory)
        visibility = "public" if arguments.public else "private"
        print(f"{len(files)} files of {arguments.directory} for {arguments.repo_id} ({visibility}):\n{describe(files)}")
        if arguments.dry_run:
            print("Nothing was uploaded (--dry_run).")
            return
        try:
            address = push(arguments.directory, arguments.repo_id, public=arguments.public)
        except PushError as error:
            raise SystemExit(f"push_to_hub.py: {error}") from error
    print(f"Pushed to {address} ({visibility})")


if __name__ == "__main__":
    main()
