"""Models that several tests of this part share."""
import torch
import transformers

from domain_llm.model.fast import GPT2

SHAPES = {'toy': (2, 4, 128, 64, 300), 'gpt2, 2 layers': (2, 12, 768, 48, 1000),
          'gpt2-medium, 1 layer': (1, 16, 1024, 32, 500),
          'gpt2-large, 1 layer': (1, 20, 1280, 32, 500), 'odd': (1, 3, 33, 17, 257)}


def noisy(cfg, std=0.05, Model=GPT2):
    "Make a model none of whose weights is zero or one, so that no error can hide."
    torch.manual_seed(0)
    model = Model(cfg)
    for p in model.parameters(): torch.nn.init.normal_(p, std=std)
    return model


def theirs_from(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
