"""--model FILE: which description a file or folder holds, and what is said if it holds none."""

import json
from pathlib import Path

import pytest

from smd_analyze.errors import UsageError
from smd_analyze.loading.model_files import hint_of

GOLDEN = Path(__file__).parents[2] / "golden" / "graphs"


@pytest.mark.parametrize("spec", ["nets.py:build", "package.module:factory", "torchvision.models:resnet18", "none"])
def test_a_callable_is_no_file(spec):
    assert hint_of(spec) is None


@pytest.mark.parametrize(("name", "kind"), [("torchscript.onnx", "onnx"), ("keras3.json", "keras config")])
def test_files_that_describe_a_model(name, kind):
    hint = hint_of(GOLDEN / name)
    assert hint is not None
    assert (hint.kind, hint.source) == (kind, str(GOLDEN / name))
    assert isinstance(hint.read(), dict)


def test_a_folder_of_hugging_face(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    for spec in (tmp_path, tmp_path / "config.json"):
        hint = hint_of(spec)
        assert hint is not None
        assert hint.kind == "huggingface config"
        assert hint.source == str(tmp_path / "config.json")


def test_what_describes_no_model_is_said(tmp_path):
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(UsageError, match="nothing in it describes a model"):
        hint_of(tmp_path / "other.json")
    with pytest.raises(UsageError, match="no config.json of a model"):
        hint_of(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        hint_of(tmp_path / "gone.onnx")
