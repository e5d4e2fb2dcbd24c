"""Models and experts that are drawn with a truth that we know."""
import numpy as np
import pandas as pd

from domain_llm.bench.scores import Scores


def made_up(name, correct, ids=None):
    "Make Scores whose cases are right where we say so."
    correct = np.asarray(correct, bool)
    original = np.full(len(correct), 30.)
    frame = pd.DataFrame(
        dict(
            id=ids or [str(i) for i in range(len(correct))],
            section='',
            original=original,
            altered=original + np.where(correct, 1, -1),
            correct=correct,
        )
    )
    return Scores(name, frame, {})


def world(rng, people, each, cases=200, skill=.22):
    "Draw a model and experts whose true accuracies are .70 and .63."
    hard, skill = rng.uniform(-.12, .12, cases), rng.uniform(-skill, skill, people)
    case = np.concatenate([rng.permutation(cases)[:each] for _ in range(people)])
    person = np.repeat(np.arange(people), each)
    rows = pd.DataFrame(
        dict(
            person=person.astype(str),
            case=case.astype(str),
            section='',
            confidence=50,
            expertise=person % 101,
        )
    )
    model = made_up('model', rng.random(cases) < .70 + hard)
    return model, rows.assign(correct=rng.random(len(case)) < .63 + hard[case] + skill[person])


def answered(people, cases, rng, skill=0., each=None):
    "Draw answers that are right on .63: a row each."
    person = np.repeat(np.arange(people), each or cases)
    case = np.concatenate([rng.permutation(cases)[:each or cases] for _ in range(people)])
    right = rng.random(len(person)) < .63 + rng.normal(0, skill, people)[person]
    return pd.DataFrame(
        dict(
            person=person.astype(str),
            case=case.astype(str),
            section='x',
            confidence=rng.integers(0, 101, len(person)),
            expertise=50,
            position='p',
            correct=right,
        )
    )
