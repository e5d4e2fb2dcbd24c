"""A field in another language goes the whole way: corpus, tokenizer, tokens, training, cases."""
import csv, json, random

import numpy as np
import pytest
import torch

from domain_llm.bench.cases import load_cases
from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.text.documents import ReadReport, read_documents
from domain_llm.text.overlap import decontaminate, deduplicate, split_documents
from domain_llm.tokens.dataset import Batches, TokenFile, write_tokens
from domain_llm.tokens.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import TrainConfig
from domain_llm.train.runs import read_log

FIELDS = {  # how a paper begins, a finding, its names, and its two outcomes
    'Turkish': ('Özet: ', '{0}, {1} bölgesinde {2} {3}. ',
                ['Müsimol', 'Işık uyarımı', 'Şeker', 'İbotenik asit'],
                ['amigdala', 'hipokampüs', 'çizgili cisim'], ['donmayı', 'öğrenmeyi', 'ağrıyı'],
                ['artırdı', 'azalttı']),
    'Chinese': ('本文报告', '向{1}注射{0}后，{2}明显{3}。',
                ['蝇蕈醇', '多巴胺', '葡萄糖', '生理盐水'],
                ['杏仁核', '海马体', '纹状体'], ['僵直行为', '空间学习', '疼痛反应'],
                ['增强', '减弱'])}


def literature(form, *names, outcomes, n, draw):
    "Write papers of four findings each, whose outcome the first two names decide."
    def finding(turned=False):
        a, b, c = (draw.choice(each) for each in names)
        law = (names[0].index(a) + names[1].index(b)) % 2
        return form.format(a, b, c, outcomes[law ^ turned])
    for _ in range(n): yield ''.join(finding() for _ in range(4)).strip()


@pytest.mark.parametrize('language', FIELDS)
def test_a_field_in_another_language_goes_the_whole_way(tmp_path, language):
    head, form, *names, outcomes = FIELDS[language]
    texts = [*literature(form, *names, outcomes=outcomes, n=150, draw=random.Random(0))]
    papers = [f'{head}{text} [{i}]' for i, text in enumerate(texts)]
    with open(tmp_path / 'cases.csv', 'w', newline='', encoding='utf-8') as file:
        rows = csv.writer(file)
        rows.writerow(['original_abstract', 'incorrect_abstract'])
        for original in texts[:6]:
            one, other = outcomes if outcomes[0] in original else outcomes[::-1]
            rows.writerow([original, original.replace(one, other, 1)])
    cases = load_cases(tmp_path / 'cases.csv')
    (tmp_path / 'papers').mkdir()
    with open(tmp_path / 'papers/makaleler 论文.jsonl', 'w', encoding='utf-8') as file:
        for paper in papers:
            file.write(json.dumps(dict(text=paper), ensure_ascii=False) + '\n')

    report = ReadReport()
    corpus = read_documents(tmp_path / 'papers', report=report)
    assert corpus['text'][:] == papers and not report.skipped
    corpus, leaks = decontaminate(corpus, [c.original for c in cases], unchecked=[])
    assert len(leaks) >= 6 and not {*papers[:6]} & {*corpus['text'][:]}
    splits = split_documents(deduplicate(corpus), validation=0.1)
    save_tokenizer(train_tokenizer(splits['train']['text'], 400), tmp_path / 'tokenizer')
    tokenizer = load_tokenizer(tmp_path / 'tokenizer')
    columns = {name: part['text'] for name, part in splits.items()}
    write_tokens(columns, tokenizer, tmp_path / 'ids')
    tokens = TokenFile(tmp_path / 'ids', tokenizer=tokenizer)
    read = tokenizer.decode(tokens.ids[:].tolist(), skip_special_tokens=True)
    assert read == ''.join(splits['train']['text'])

    torch.manual_seed(0)
    model = GPT2(GPT2Config.preset('toy', tokenizer.get_vocab_size(), n_embd=32, n_layer=1))
    config = TrainConfig(steps=30, tokens_per_step=256, lr=1e-2)
    pretrain(model, Batches(tokens, n_ctx=32, tokens_per_step=256), config, tmp_path / 'run')
    losses = [line['loss'] for line in read_log(tmp_path / 'run') if 'loss' in line]
    assert losses[-1] < losses[0] - 0.5
    scores = score_cases(model, tokenizer, cases, prompt='')
    assert scores.n == 6 and np.isfinite(scores.margin).all() and (scores.margin != 0).all()
