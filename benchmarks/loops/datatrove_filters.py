"""datatrove's filters as they come, with spaCy's words, in an environment of their own: for each name of a filter on
standard input, one pass over the texts of a JSON file; answers `[seconds, [decisions]]`."""

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline import filters


def main() -> None:
    texts = json.loads(Path(sys.argv[1]).read_text())
    chosen = {name: getattr(filters, name)() for name in sys.argv[2:]}
    for each in chosen.values():
        each.filter(Document(text=texts[0], id="0"))  # loads what it needs
    print("ready", flush=True)
    for line in sys.stdin:
        each = chosen[line.strip()]
        start = time.perf_counter()
        kept = [each.filter(Document(text=text, id="0")) is True for text in texts]
        print(json.dumps([time.perf_counter() - start, kept]), flush=True)


if __name__ == "__main__":
    main()
