"""`ecg-jepa push`: a directory -> the Hugging Face Hub."""

import glob
from pathlib import Path

from ..publishing.hub import PushedFile, describe, publishable_files, push, upload
from ..publishing.space import EXAMPLES, MODEL, REQUIREMENTS, write_space
from .command_settings import PushSettings


def run(settings: PushSettings) -> None:
    """List what goes, and push it unless it is a dry run."""
    visibility = "public" if settings.public else "private"
    files = _prepare(settings)
    source = settings.space_dir if settings.space else settings.directory
    kind = "a Space, " if settings.space else ""
    print(f"{len(files)} files of {source} for {settings.repo_id} ({kind}{visibility}):\n{describe(files)}")
    if settings.space:
        requirement = Path(source, REQUIREMENTS).read_text().splitlines()[0]
        print(f"It is written to {source}, and runs where pip finds {requirement} (or what --space_requirement names).")
    if settings.dry_run:
        print("Nothing was uploaded (--dry_run).")
        return
    if settings.space:
        # What an earlier push left in its folders, and this one does not have, goes.
        names, folders = [glob.escape(file.name) for file in files], (f"{MODEL}/*", f"{EXAMPLES}/*")
        address = upload(source, settings.repo_id, "space", settings.public, None, names, delete=folders)
    else:
        address = push(settings.directory, settings.repo_id, public=settings.public)
    print(f"Pushed to {address} ({kind}{visibility})")


def _prepare(settings: PushSettings) -> list[PushedFile]:
    """What is to go: the files of the directory, or those of a Space that is written for it."""
    if not settings.space:
        return publishable_files(settings.directory)
    title = settings.repo_id.rpartition("/")[2] or Path(settings.directory).name
    return write_space(settings.directory, settings.space_dir, title, settings.space_examples, settings.space_requirement)
