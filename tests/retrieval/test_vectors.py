import pyarrow as pa
import pytest
import torch

from optirag_core.errors import ArtifactCorrupt
from optirag_core.retrieval.vectors import load_vectors, save_vectors


def test_round_trip(tmp_path):
    ids, embeddings = pa.array(["ö", "1", ""]), torch.randn(5, 3).T[:, :4]  # not contiguous
    save_vectors(tmp_path, "item", ids, embeddings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["item_embeddings.safetensors", "items.arrow"]
    loaded_ids, loaded = load_vectors(tmp_path, "item")
    assert loaded_ids.to_pylist() == ids.to_pylist()
    assert torch.equal(loaded, embeddings)


def test_different_numbers_of_rows_are_refused(tmp_path):
    save_vectors(tmp_path, "item", pa.array(["a", "b"]), torch.zeros(3, 2))
    with pytest.raises(ArtifactCorrupt, match="2 item ids but 3 vectors"):
        load_vectors(tmp_path, "item")
