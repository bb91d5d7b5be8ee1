"""A hook of MkDocs: links of a page to files of the repository that are not part of the site.

On GitHub such a link opens the file. The site does not have it, so the link becomes the file's path.
"""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_rest: Any) -> str:
    """Returns the page with each link that leaves `docs/` replaced by the path that it names."""
    documents = Path(config["docs_dir"]).resolve()
    folder = (documents / page.file.src_uri).parent

    def replaced(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(documents):
            return link[0]
        path = target.relative_to(documents.parent).as_posix()
        return f"`{path}`" if link[1].strip("`").endswith(path) else f"{link[1]} (`{path}`)"

    return _LINK.sub(replaced, markdown)
