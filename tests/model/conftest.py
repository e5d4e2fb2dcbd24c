"""Models and the folders they were saved to."""
import pytest

from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import save_model
from noisy_models import SHAPES, noisy, theirs_from


@pytest.fixture(params=SHAPES)
def pair(request, tmp_path):
    "Make our model, that of transformers with the same weights, and a folder."
    n_layer, n_head, n_embd, n_ctx, vocab = SHAPES[request.param]
    ours = noisy(GPT2Config(vocab, n_layer, n_head, n_embd, n_ctx))
    save_model(ours, tmp_path / 'model')
    return ours, theirs_from(tmp_path / 'model'), tmp_path


@pytest.fixture
def small(tmp_path):
    "Make a small model, and the folder it was saved to."
    model = noisy(GPT2Config(60, 2, 2, 16, 32), 0.3).eval()
    save_model(model, tmp_path / 'model')
    return model, tmp_path / 'model'
