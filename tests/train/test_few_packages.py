"""A run, and the benchmark of GPUs, with nothing installed but what they need."""
import re, runpy
from pathlib import Path

import numpy as np
import pytest
from processes import in_a_process

from domain_llm.model.gpt2 import GPT2Config
from domain_llm.train.runs import read_log

BENCHMARK = Path(__file__).parents[2] / 'benchmarks/gpu.py'

BARE = """
import sys
blocked = ('tqdm datasets pandas matplotlib scipy huggingface_hub transformers pyarrow wandb '
           'trackio tensorboard typer lxml pooch datasketch ipywidgets IPython jinja2').split()
sys.modules.update(dict.fromkeys(blocked))   # importing them fails, as if they were not installed
"""

RUN = BARE + """
import numpy as np, torch
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
ids = np.arange(2000) % 50
config = TrainConfig(steps=3, tokens_per_step=64, **FAST_RECIPE)
pretrain(GPT2(GPT2Config(50, 1, 2, 16, 16)), Batches(ids, 16, 64), config, 'run', ids[:100])
print('{"done": true}')
"""

SMOKE = BARE + f"""
import contextlib, io, json, runpy
sys.argv = ['gpu.py', '--smoke']
with contextlib.redirect_stdout(io.StringIO()) as said:
    runpy.run_path({str(BENCHMARK)!r}, run_name='__main__')
print(json.dumps(said.getvalue()))
"""


def test_a_run_needs_only_torch_numpy_safetensors_and_tokenizers(tmp_path):
    assert in_a_process('-c', RUN, cwd=tmp_path)['done']
    assert len(read_log(tmp_path / 'run')) == 5


def test_the_gpu_benchmark_runs_tiny(tmp_path):
    said = in_a_process('-c', SMOKE, cwd=tmp_path)
    parts = dict(part.split('\n', 1) for part in said.split('\n## ')[1:])
    assert list(parts) == ['speed', 'profile', 'half', 'recipes', 'long']
    assert re.search(r'ours, FAST, eager \| \d \| [\d,]{4,} \| [\d.]+%', parts['speed'])
    assert "the paper's loop | 1 | not measured: no transformers" in parts['speed']
    assert 'nanoGPT, compiled: not measured (bar 1.25)' in parts['speed']
    shares = dict(re.findall(r'^\| (.+?) \| .* \| (-?[\d.]+)% \|$', parts['profile'], re.M))
    shares = {part: float(share) for part, share in shares.items()}
    assert len(shares) == 7 and shares['optimizers'] > 10, shares
    # two of the seven are differences between three timings, which a busy machine may turn round
    assert all(shares[k] > 0 for k in shares if k == 'attention' or k.startswith('loss'))
    assert abs(sum(shares.values()) - 100) < 0.5, shares
    # one gradient is infinite: the step is left out, the scale halved, and the losses are close
    assert 'multiplied by 32,768 from now on' in parts['half']
    last = re.search(r'validation loss \| (.+?) \| (.+?) \|', parts['half']).groups()
    assert float(last[0]) == pytest.approx(float(last[1]), abs=0.2) and float(last[0]) < 5
    paper, fast = (float(re.search(rf'\| {name} \|.*, ([\d.]+) at [\d.]+M \|', parts['recipes'])[1])
                   for name in ('PAPER', 'FAST'))
    assert paper > fast + 0.3
    assert 'FAST ends below it after 1,280 tokens' in parts['recipes']
    assert re.search(r'validation loss 5\.\d+ at .*, 4\.\d+ at', parts['long'])


def test_the_benchmark_reads_ids_as_unequally_frequent_as_words():
    ids, _ = runpy.run_path(BENCHMARK)['noise'](GPT2Config(50_257), 2)
    assert 0.02 < np.unique(ids, return_counts=True)[1].max() / ids.size < 0.08


KERNELS = {
    'void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>': 'attention',
    'fmha_cutlassF_bf16_aligned_64x64_rf_sm80': 'attention',
    'cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16': 'attention',
    'aten::_scaled_dot_product_flash_attention_for_cpu': 'attention',
    'nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT': 'product',
    'ampere_bf16_s16816gemm_bf16_128x64_nn': 'product',
    'void cutlass::device_kernel<sm90_mma>': 'product',
    'aten::addmm': 'product',
    'aten::mm': 'product',
    'aten::mul': 'other',
    'triton_red_fused_native_layer_norm_0': 'other',
    'void at::native::vectorized_elementwise_kernel<4>': 'other',
}


@pytest.mark.parametrize('kernel', KERNELS)
def test_a_kernel_is_known_by_its_name(kernel):
    assert runpy.run_path(BENCHMARK)['kind'](kernel) == KERNELS[kernel]
