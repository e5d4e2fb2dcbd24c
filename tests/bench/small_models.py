"""Models that several tests of this part share."""
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config


def random_model(vocab_size, n_ctx=256, std=0.2):
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size, 2, 2, 32, n_ctx)).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=std)
    return model
