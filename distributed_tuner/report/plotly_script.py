"""plotly.js as a page carries it: compressed, in text that may stand inside a script element."""

import base64
import functools
import gzip


@functools.cache
def packed_plotly() -> str:
    """Return plotly.js under gzip, in base64: 2.0 MB instead of 4.8. The page unpacks it (``DecompressionStream``)."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii")
