"""Texts, their tokenizer and a judge that several tests of this part share."""
import os, subprocess, sys

from hypothesis import strategies as st
from tokenizers import Tokenizer

from domain_llm.tokens.tokenizer import train_tokenizer

TEXTS = [f'rat {i} froze, and the {w} of rat {i * i} did not.  It was\n\nquiet' for i,
         w in enumerate('amygdala insula cortex striatum'.split() * 15)]
TOKENIZER = train_tokenizer(TEXTS, 500)
CAREFUL = Tokenizer.from_str(TOKENIZER.to_str())
CAREFUL.encode_special_tokens = True
EOS = TOKENIZER.token_to_id('<|endoftext|>')

SPACES = st.sampled_from(
    [' ', '  ', '\n', '\t', '\r\n', '\u00a0', '\u2003', '\u2028', '\x1c', '\x85', '\u200b'])
ODD = ["it's", ';', '…', '3.1', '²½', '<|endoftext|>', '日本', '👩‍🔬', 'Ġ', '\u0301']
PRINTABLE = st.text(max_size=4).filter(lambda t: t.isprintable())
BITS = st.one_of(SPACES, st.sampled_from(ODD), PRINTABLE)
ANY = st.lists(BITS, max_size=25).map(''.join)


def judge(texts, tokenizer=CAREFUL, eos=EOS):
    "Give the line of ids by the library's own encode_batch."
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [i for e in encoded for i in (*e.ids, eos)]


def contents(folder): return {p.name: p.read_bytes() for p in folder.iterdir()}


def interrupted(texts, after):
    for n, text in enumerate(texts):
        if n == after: raise OSError('gone')
        yield text


def script(code, *args, **env):
    "Run code in a process of its own, which finds this folder; give what it printed."
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, os.environ['PYTHONPATH']])
    done = subprocess.run([sys.executable, '-c', code, *map(str, args)],
                          capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': path, **env})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
