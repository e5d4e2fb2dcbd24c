"""Models that several tests of this part share."""
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config


def random_model(vocab_size, n_ctx=256, std=0.2):
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size, 2, 2, 32, n_ctx)).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=std)
    return model


class Reversed:
    "Read rows from the end, and show nothing but a context and `log_probs`."
    def __init__(self, model): self.model, self.cfg = model, model.cfg

    def log_probs(self, ids):
        turned = torch.cat([ids[:, :1], ids[:, 1:].flip(1)], 1)
        with torch.no_grad(): found = torch.log_softmax(self.model(turned)[:, :-1].double(), -1)
        found = found.gather(2, turned[:, 1:, None])[..., 0].flip(1)
        # of the first token: no number
        return torch.nn.functional.pad(found, (1, 0), value=float('nan'))
