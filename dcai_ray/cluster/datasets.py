"""Tables as datasets of Ray Data."""

from typing import Any

import pyarrow as pa
import ray.data


def dataset_of(table: pa.Table) -> Any:
    """A `ray.data.Dataset` of a table; joins the cluster of this process, or starts one."""
    return ray.data.from_arrow(table)
