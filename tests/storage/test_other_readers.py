"""A run's files as other tools read them, with no code of ours."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

TABLES = ("values/values.parquet", "values/evidence.parquet", "images.parquet", "kept.parquet",
          "cleaned/probes.parquet", "features/train", "features/shapley_val")  # fmt: skip


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """`datasets`, which keeps its cache and asks its hub elsewhere unless it is told not to."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("datasets")


def _count(run, table):
    return sum(pq.read_metadata(f).num_rows for f in sorted((run / table).rglob("*.parquet"))
               or [run / table])  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_pandas_and_polars_read_every_table_and_every_folder_of_shards(small_run, table):
    count = _count(small_run, table)
    assert len(pd.read_parquet(small_run / table)) == count
    assert len(pl.read_parquet(small_run / table)) == count


@pytest.mark.parametrize("table", TABLES)
def test_duckdb_reads_every_table(small_run, table):
    files = small_run / table / "*.parquet" if (small_run / table).is_dir() else small_run / table
    assert duckdb.sql(f"select count(*) from '{files}'").fetchall() == [(_count(small_run, table),)]


@pytest.mark.parametrize("name", ["values", "evidence", "images", "kept", "probes"])
def test_hugging_face_reads_the_tables_of_a_run_by_name(small_run, hugging_face, name):
    found = hugging_face.load_dataset(str(small_run), name)["train"]
    (table,) = [t for t in TABLES if t.endswith(f"{name}.parquet")]
    assert len(found) == _count(small_run, table)


def test_hugging_face_keeps_the_splits_of_features_apart(small_run, hugging_face):
    found = hugging_face.load_dataset(str(small_run / "features"))
    sizes = {split: len(rows) for split, rows in found.items()}
    listed = pd.read_parquet(small_run / "images.parquet")["split"].value_counts()
    assert sizes == listed.to_dict()


def test_vectors_arrive_as_they_were_written(small_run):
    ours = pq.read_table(small_run / "features/val")["feature"].to_pylist()
    assert pl.read_parquet(small_run / "features/val")["feature"].to_list() == ours
    assert [list(row) for row in pd.read_parquet(small_run / "features/val")["feature"]] == ours
