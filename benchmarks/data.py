"""From text to shards beside datatrove and `datasets`: filters, dedup, tokenization; and how a corpus' cost grows.

All in one run, on the same cores and the same text, of the folder that `SMELT_DATA` names.
"""

from typing import Any

import data_dedup
import data_filters
import data_growth
import data_shards
from common import main


def measure(quick: bool) -> list[dict[str, Any]]:
    return [result for part in (data_filters, data_dedup, data_shards, data_growth) for result in part.rows(quick)]


if __name__ == "__main__":
    main(measure)
