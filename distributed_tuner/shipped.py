"""Search spaces of the package: next to it in a checkout, within it when installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
FOLDER = "search_spaces"


def search_spaces() -> Path:
    """Return the folder of the search spaces that are shipped."""
    within = PACKAGE / FOLDER
    return within if within.is_dir() else PACKAGE.parent / FOLDER


def found(path: Path) -> Path:
    """Return a search space's path: as it is, or of a shipped one, which is search_spaces/NAME.yaml anywhere."""
    shipped = search_spaces() / path.name
    return shipped if path.parent == Path(FOLDER) and not path.exists() and shipped.is_file() else path
