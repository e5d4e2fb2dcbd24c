"""How far a network reaches: scikit-learn judges the straight lines and the errors."""
import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import median_absolute_error

from domain_llm.model.fast import GPT2
from domain_llm.research.reach import along_rays, by_place, directions, extrapolation_error, line_r2
from domain_llm.text.synthetic import SyntheticScience, read_findings, row_text
from domain_llm.train.rows import ROW_MODEL, row_margins


def cubic(x): return (x ** 3).sum(1) + 1


def test_the_straightness_of_a_ray_is_that_of_scikit_learn():
    rays, radii = directions(50, 3, seed=1), [0.5, 1, 1.7, 4]
    values = along_rays(cubic, rays, radii).numpy()
    at = np.array(radii)[:, None]
    judged = [LinearRegression().fit(at, row).score(at, row) for row in values]
    assert np.allclose(line_r2(torch.tensor(values), radii), judged, atol=1e-9)


def test_the_error_is_a_median_in_per_cent_of_the_target():
    rays = directions(51, 3, seed=2)
    found = rays.numpy().astype(float) * 2
    share = (found ** 2).sum(1) / ((found ** 3).sum(1) + 1)
    judged = 100 * median_absolute_error(np.ones(51), share)
    error = extrapolation_error(lambda x: x.square().sum(1), cubic, rays, 2)
    assert np.isclose(error, judged, rtol=1e-4)


def test_a_case_at_the_first_place_is_the_case_and_later_ones_follow_true_findings():
    science = SyntheticScience(2)
    torch.manual_seed(0)
    model = GPT2(ROW_MODEL).eval()
    first = by_place(model, science, [1])[1]
    assert np.array_equal(first, row_margins(model, science.row_cases()))
    read = {tuple(row) for row in science.rows()}
    asked = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(1))
        def forward(self, ids):
            asked.extend(ids.tolist())
            return torch.zeros(*ids.shape, 49)

    by_place(Spy(), science, [5])
    assert not {tuple(row[:17]) for row in asked} & read       # no paper that was trained on
    for row in asked:
        assert all(science.direction(t) == d for t, d in read_findings(row_text(row[:17])))
