"""
Makes pages of the repository's own texts, which link to each other as they lie there: links between them become links of the
site, and links to what is no page of it become plain text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# File of the repository -> page.
PAGES = {
    "README.md": "index.md",
    "training/README.md": "commands.md",
    "BENCHMARKS.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")  # of no host, and not within its own page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in `docs/`."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mend the links of a page, seen from where its text lies in the repository."""
    places = {page: source for source, page in PAGES.items()}
    source = places.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def mend(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = PAGES.get(place, place.removeprefix("docs/"))
        if files.get_file_from_path(there) is None or (there == place and place not in PAGES):
            if not (Path(config.config_file_path).parent / place).exists():
                return link[0]  # mkdocs says that it leads nowhere
            return text
        address = posixpath.relpath(there, posixpath.dirname(page.file.src_uri))
        return f"{picture}[{text}]({address}{anchor or ''})"

    return _LINK.sub(mend, markdown)
