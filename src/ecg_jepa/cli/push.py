"""`ecg-jepa push`: a directory -> the Hugging Face Hub."""

from pathlib import Path

from .._utils.settings import option, settings


@settings
class PushSettings:
    """Settings of `ecg-jepa push`."""

    directory: str = option(text="of an encoder or a classifier, as pretrain and finetune write it", positional=True)
    repo_id: str = option(text="ORG/NAME of the repository; it is created if it is not there")
    public: bool = option(False, "for everybody to see")
    dry_run: bool = option(False, "only list what would go")
    space: bool = option(False, "push a Space with a page for the classifier, instead of the model itself")
    space_dir: str = option("runs/space", "folder in which the Space is written; it runs locally as it is")
    space_examples: str | None = option(None, "folder with records that visitors of the Space can pick")
    space_requirement: str = option("", "how pip finds this package there; default: its version on PyPI")


def run(settings: PushSettings) -> None:
    """List the files, and upload them unless it is a dry run."""
    from ..publishing.hub import publishable_files, upload
    from ..publishing.space import REQUIREMENTS, write_space

    kind = f"{'a Space, ' if settings.space else ''}{'public' if settings.public else 'private'}"
    source = settings.space_dir if settings.space else settings.directory
    if settings.space:
        title = settings.repo_id.rpartition("/")[2] or Path(settings.directory).name
        files = write_space(settings.directory, settings.space_dir, title, settings.space_examples, settings.space_requirement)
    else:
        files = publishable_files(settings.directory)
    print(f"{len(files)} files of {source} for {settings.repo_id} ({kind}):")
    for name, path in files.items():
        print(f"  {path.stat().st_size / 1e6:9.3f} MB  {name}")
    if settings.space:
        requirement = files[REQUIREMENTS].read_text().splitlines()[0]
        print(f"It is written to {source}, and runs where pip finds {requirement} (or what --space_requirement names).")
    if settings.dry_run:
        print("Nothing was uploaded (--dry_run).")
        return
    address = upload(files, settings.repo_id, "space" if settings.space else "model", settings.public)
    print(f"Pushed to {address} ({kind})")
