"""Columns of a run's Parquet files."""

import pyarrow as pa

_PACKED = pa.struct(  # where a picture lies in a container
    [
        ("file", pa.string()),  # path below the data's root; "" if the root is the container
        ("start", pa.int64()),  # first byte, or row
        ("length", pa.int64()),  # bytes as packed
        ("how", pa.string()),  # stored, zip or row
        ("bytes", pa.int64()),  # of the picture
        ("column", pa.string()),  # of a table
    ]
)
IMAGES = pa.schema(
    [
        ("split", pa.string()),
        ("id", pa.string()),  # path below the split's folder
        ("label", pa.string()),
        ("path", pa.string()),  # path below the data's root
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the file
        ("pixels", pa.string()),  # hash of the decoded picture
        ("blank", pa.bool_()),  # whether it has one colour only
        ("white", pa.float64()),  # the value that deep greys show as white; 0 for 8 bits
        ("packed", _PACKED),  # null for a file of its own
    ]
)
SKIPPED = pa.schema(
    [("split", pa.string()), ("id", pa.string()), ("bytes", pa.int64()), ("reason", pa.string())]
)
METRICS = pa.schema(
    [
        ("arm", pa.string()),
        ("backbone", pa.string()),
        ("seed", pa.int64()),
        ("epoch", pa.int64()),
        ("split", pa.string()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
        ("auroc", pa.float64()),
    ]
)
PROBES = pa.schema(
    [
        ("arm", pa.string()),
        ("probe", pa.string()),
        ("seed", pa.int64()),
        ("images", pa.int64()),  # trained on
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
        ("auroc", pa.float64()),
    ]
)
REMOVAL = pa.schema(
    [
        ("order", pa.string()),  # which images are removed first
        ("share", pa.float64()),  # removed
        ("images", pa.int64()),  # left
        ("accuracy", pa.float64()),  # on val, of the K nearest neighbours
    ]
)
ESTIMATES = pa.schema(  # the estimate of each image's value
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("value", pa.float64()),
        ("stderr", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("rounds", pa.int64()),
        ("evaluated", pa.int64()),
        ("decision", pa.string()),
    ]
)
VALUES = pa.schema(
    [
        *ESTIMATES,
        ("suggested_label", pa.string()),
        ("stderr_validation", pa.float64()),
    ]
)
EVIDENCE = pa.schema(  # further columns of the values, those that a run knows
    [
        ("path", pa.string()),  # below the data's root, where images were read
        ("value_self", pa.float64()),  # by the other training images
        ("suggested_probability", pa.float64()),
        ("margin", pa.float64()),  # of the given label, under a leave-one-out probe
        ("wrong_probability", pa.float64()),  # null for a class that shapley_val lacks
        ("suspicion", pa.float64()),  # where no probability is known: mean rank, 1 the worst
        ("tier", pa.string()),  # likely, possible or look; null for no suspect
        ("reason", pa.string()),
        ("conflict", pa.string()),  # the same picture under another label; null for none
    ]
)
VALIDATION_VALUES = pa.schema(  # of validation images, the most suspicious first
    [
        ("split", pa.string()),
        ("id", pa.string()),
        ("label", pa.string()),
        ("value", pa.float64()),  # by all other labelled images
        ("stderr_validation", pa.float64()),
        ("suggested_label", pa.string()),
        ("suggested_probability", pa.float64()),
        ("margin", pa.float64()),
        ("wrong_probability", pa.float64()),  # by likeness to planted errors
        ("doubted", pa.bool_()),
    ]
)
GROUP_VALUES = pa.schema(  # of groups of training images, the lowest value first
    [
        ("group", pa.string()),
        ("images", pa.int64()),
        ("value", pa.float64()),
        ("value_per_image", pa.float64()),
        ("stderr", pa.float64()),  # by sampling; 0 if exact, and the bounds are the value
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("rounds", pa.int64()),
        ("wrong_share", pa.float64()),  # mean P(wrong); NaN where no probability is known
    ]
)
TRACE = pa.schema(  # of sampling, one row per look
    [
        ("rounds", pa.int64()),  # summed over chains
        ("waves", pa.int64()),  # complete waves of blocks
        ("seconds", pa.float64()),  # of sampling, summed over resumed runs
        ("settled", pa.float64()),  # share of the images that are decided
        ("max_stderr", pa.float64()),
        ("rank_correlation", pa.float64()),  # of two halves of the chains
        ("r_hat", pa.float64()),  # Gelman-Rubin, the largest; for information only
    ]
)
KEPT = pa.schema([("id", pa.string()), ("label", pa.string()), ("value", pa.float64())])
