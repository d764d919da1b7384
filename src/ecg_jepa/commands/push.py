"""`ecg-jepa push`: a directory -> the Hugging Face Hub."""

from ..publishing.hub import describe, publishable_files, push
from .settings import PushSettings


def run(settings: PushSettings) -> None:
    """List what goes, and push it unless it is a dry run."""
    files = publishable_files(settings.directory)
    visibility = "public" if settings.public else "private"
    print(f"{len(files)} files of {settings.directory} for {settings.repo_id} ({visibility}):\n{describe(files)}")
    if settings.dry_run:
        print("Nothing was uploaded (--dry_run).")
        return
    address = push(settings.directory, settings.repo_id, public=settings.public)
    print(f"Pushed to {address} ({visibility})")
