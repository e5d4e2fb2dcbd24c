"""Every table of the paper that its published arrays allow, to all digits that were recomputed from them.

The blocks below are the recomputed numbers, row by row; a row's first cells say who, the others are numbers.
A number agrees when it rounds to the digits that are written.
"""
import os
import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from domain_llm import experts as ex
from domain_llm.bench.stats import Line, flip_test
from domain_llm.bench.cases import named_file
from domain_llm.bench.losses import PROMPT

DATA = os.environ.get('DOMAIN_LLM_DATA')
pytestmark = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')

MODELS_2_1 = """
| gpt2_init | 92 | 0.4600 | 0.035242 | 62715.5696 | 62611.3031 | 62683.7246 | -31.8450 | 25079858.8354 |
| gpt2 | 115 | 0.5750 | 0.034955 | 26.4395 | 24.9115 | 26.5671 | 0.1276 | 10601.3323 |
| gpt2_scratch | 116 | 0.5800 | 0.034900 | 34.8446 | 33.0604 | 35.0001 | 0.1555 | 13968.9373 |
| finetune_gpt2 | 127 | 0.6350 | 0.034042 | 17.8961 | 17.2734 | 18.0301 | 0.1340 | 7185.2321 |
| finetune_gpt2_lr2e-6 | 123 | 0.6150 | 0.034407 | 22.4464 | 21.4237 | 22.5744 | 0.1280 | 9004.1517 |
| gpt2_scratch_neuro_tokenizer | 125 | 0.6250 | 0.034233 | 59.7971 | 56.2232 | 60.1135 | 0.3164 | 23982.1148 |
| gpt2_scratch_neuro_tokenizer_spt | 129 | 0.6450 | 0.033836 | 59.8827 | 56.5270 | 60.1942 | 0.3115 | 24015.3936 |
| gpt2-medium_scratch_neuro_tokenizer | 127 | 0.6350 | 0.034042 | 29.6140 | 28.7457 | 29.8611 | 0.2471 | 11895.0033 |
| gpt2-medium_scratch_neuro_tokenizer_spt | 132 | 0.6600 | 0.033496 | 29.3991 | 28.3289 | 29.6374 | 0.2383 | 11807.2834 |
| gpt2-large_scratch_neuro_tokenizer | 144 | 0.7200 | 0.031749 | 20.2885 | 19.3372 | 20.5443 | 0.2558 | 8166.5704 |
| gpt2-medium | 131 | 0.6550 | 0.033614 | 19.2198 | 18.5005 | 19.3822 | 0.1624 | 7720.4136 |
| gpt2-large | 139 | 0.6950 | 0.032556 | 17.0823 | 16.2707 | 17.2708 | 0.1884 | 6870.6208 |
"""

ISOLATED_2_3 = """
| gpt2_scratch_neuro_tokenizer | human | 488 | 0 | 0.6250 | 287/488 | 0.588115 | 0.022280 | 0.579833 | 0.4750 | 0.3650 | 0.6050 |
| gpt2-medium_scratch_neuro_tokenizer | human | 488 | 0 | 0.6350 | 295/488 | 0.604508 | 0.022134 | 0.602167 | 0.5150 | 0.3750 | 0.6250 |
| gpt2-large_scratch_neuro_tokenizer | human | 488 | 0 | 0.7200 | 316/488 | 0.647541 | 0.021626 | 0.649500 | 0.5800 | 0.4300 | 0.7000 |
"""

SUBFIELDS_2_5 = """
| human | Behavioral/Cognitive | 374 | 251 | 0.671123 | 0.024293 | 57.00 | 76 | 0.776316 | 0.047800 | 32.8182 |
| human | Systems/Circuits | 258 | 145 | 0.562016 | 0.030888 | 50.00 | 71 | 0.661972 | 0.056139 | 27.4302 |
| human | Neurobiology of Disease | 118 | 73 | 0.618644 | 0.044714 | 48.00 | 25 | 0.520000 | 0.099920 | 23.3729 |
| human | Cellular/Molecular | 134 | 87 | 0.649254 | 0.041224 | 41.80 | 27 | 0.740741 | 0.084337 | 21.5149 |
| human | Development/Plasticity/Repair | 127 | 85 | 0.669291 | 0.041747 | 49.40 | 26 | 0.807692 | 0.077292 | 21.6693 |
| machine | Behavioral/Cognitive | 191 | 134 | 0.701571 | 0.033109 | 56.00 | 40 | 0.725000 | 0.070600 | 35.5340 |
| machine | Systems/Circuits | 128 | 91 | 0.710938 | 0.040069 | 50.00 | 30 | 0.800000 | 0.073030 | 23.9609 |
| machine | Neurobiology of Disease | 67 | 42 | 0.626866 | 0.059086 | 50.00 | 17 | 0.705882 | 0.110510 | 22.4478 |
| machine | Cellular/Molecular | 63 | 44 | 0.698413 | 0.057822 | 36.60 | 13 | 0.692308 | 0.128008 | 19.8730 |
| machine | Development/Plasticity/Repair | 54 | 40 | 0.740741 | 0.059635 | 41.20 | 11 | 0.545455 | 0.150131 | 20.8148 |
"""

POSITIONS_2_5 = """
| Predoctoral student | 155 | 0.1024 | 18 | 68/104 | 0.653846 | 0.046650 | 40/51 | 0.784314 | 0.057593 |
| Doctoral student | 451 | 0.2979 | 51 | 175/300 | 0.583333 | 0.028464 | 104/151 | 0.688742 | 0.037679 |
| Postdoctoral researcher | 381 | 0.2517 | 43 | 169/255 | 0.662745 | 0.029606 | 89/126 | 0.706349 | 0.040573 |
| Faculty/Academic staff | 383 | 0.2530 | 43 | 170/256 | 0.664062 | 0.029520 | 86/127 | 0.677165 | 0.041489 |
| Research scientist | 108 | 0.0713 | 12 | 44/72 | 0.611111 | 0.057452 | 22/36 | 0.611111 | 0.081250 |
| __other | 36 | 0.0238 | 4 | 15/24 | 0.625000 | 0.098821 | 10/12 | 0.833333 | 0.107583 |
"""

EXPERTISE_2_5 = """
| human | Overall | 1011 | 0.608696 | 0.581028 | 0.616601 | 0.730159 | 1.582443e-04 | 0.7845 | 0.2155 |
| human | Behavioral/Cognitive | 374 | 0.606383 | 0.645161 | 0.648936 | 0.784946 | 5.769675e-04 | 0.8914 | 0.1086 |
| human | Systems/Circuits | 258 | 0.507692 | 0.546875 | 0.538462 | 0.656250 | 6.779219e-04 | 0.8705 | 0.1295 |
| human | Neurobiology of Disease | 118 | 0.566667 | 0.724138 | 0.666667 | 0.517241 | -6.974479e-04 | -0.2830 | 0.7170 |
| human | Cellular/Molecular | 134 | 0.764706 | 0.515152 | 0.588235 | 0.727273 | -1.170618e-04 | -0.0432 | 0.9568 |
| human | Development/Plasticity/Repair | 127 | 0.562500 | 0.656250 | 0.656250 | 0.806452 | 2.305055e-03 | 0.9362 | 0.0638 |
| machine | Overall | 503 | 0.690476 | 0.706349 | 0.658730 | 0.736000 | 7.073748e-05 | 0.3565 | 0.6435 |
| machine | Behavioral/Cognitive | 191 | 0.708333 | 0.708333 | 0.645833 | 0.744681 | 9.747132e-05 | 0.1464 | 0.8536 |
| machine | Systems/Circuits | 128 | 0.718750 | 0.656250 | 0.656250 | 0.812500 | 8.789063e-04 | 0.4917 | 0.5083 |
| machine | Neurobiology of Disease | 67 | 0.588235 | 0.647059 | 0.588235 | 0.687500 | 1.426690e-03 | 0.6357 | 0.3643 |
| machine | Cellular/Molecular | 63 | 0.562500 | 0.687500 | 0.812500 | 0.733333 | 4.047619e-03 | 0.7868 | 0.2132 |
| machine | Development/Plasticity/Repair | 54 | 0.928571 | 0.846154 | 0.642857 | 0.538462 | -1.017501e-02 | -0.9868 | 0.0132 |
"""

SUBFIELDS_2_6 = """
| gpt2_init | 0.3467 | 0.5294 | 0.4800 | 0.6000 | 0.5000 |
| gpt2 | 0.5200 | 0.6471 | 0.5200 | 0.6000 | 0.6250 |
| gpt2_scratch | 0.6000 | 0.5882 | 0.4400 | 0.5600 | 0.6667 |
| finetune_gpt2 | 0.5867 | 0.6275 | 0.6800 | 0.6400 | 0.7500 |
| finetune_gpt2_lr2e-6 | 0.5600 | 0.6471 | 0.6000 | 0.6800 | 0.6667 |
| gpt2_scratch_neuro_tokenizer | 0.6267 | 0.5882 | 0.5600 | 0.6400 | 0.7500 |
| gpt2_scratch_neuro_tokenizer_spt | 0.6400 | 0.6471 | 0.5600 | 0.6400 | 0.7500 |
| gpt2-medium_scratch_neuro_tokenizer | 0.5467 | 0.6471 | 0.7200 | 0.6000 | 0.8333 |
| gpt2-medium_scratch_neuro_tokenizer_spt | 0.6267 | 0.6275 | 0.7200 | 0.6400 | 0.7917 |
| gpt2-large_scratch_neuro_tokenizer | 0.6800 | 0.7059 | 0.7200 | 0.6400 | 0.9583 |
| gpt2-medium | 0.6000 | 0.6471 | 0.5600 | 0.7600 | 0.8333 |
| gpt2-large | 0.6933 | 0.6078 | 0.6400 | 0.7200 | 0.9167 |
"""

BINS_2_7 = """
| Human experts, human cases | 20 | 1011 | 2.744687e-04 | 0.013874 | 0.495158 | 0.74833 | 1.4773e-04 |
| Human experts, human cases | 10 | 1011 | 2.597223e-04 | 0.026258 | 0.502859 | 0.95707 | 1.4104e-05 |
| Human experts, GPT-4 cases | 20 | 503 | 5.415742e-04 | 0.013621 | 0.561717 | 0.66674 | 1.3245e-03 |
| Human experts, GPT-4 cases | 10 | 503 | 5.175365e-04 | 0.026032 | 0.567840 | 0.85786 | 1.4988e-03 |
| gpt2_init | 20 | 200 | 8.421053e-04 | 0.008421 | 0.375789 | 0.34863 | 1.3195e-01 |
| gpt2_init | 10 | 200 | 7.878788e-04 | 0.015758 | 0.381212 | 0.45488 | 1.8654e-01 |
| gpt2 | 20 | 200 | 1.827068e-03 | 0.018271 | 0.392293 | 0.58106 | 7.2150e-03 |
| gpt2 | 10 | 200 | 1.772727e-03 | 0.035455 | 0.397727 | 0.81468 | 4.0986e-03 |
| gpt2_scratch | 20 | 200 | 1.383459e-03 | 0.013835 | 0.441654 | 0.48913 | 2.8620e-02 |
| gpt2_scratch | 10 | 200 | 1.393939e-03 | 0.027879 | 0.440606 | 0.65165 | 4.1208e-02 |
| finetune_gpt2 | 20 | 200 | 1.812030e-03 | 0.018120 | 0.453797 | 0.55632 | 1.0853e-02 |
| finetune_gpt2 | 10 | 200 | 1.712121e-03 | 0.034242 | 0.463788 | 0.64817 | 4.2673e-02 |
| finetune_gpt2_lr2e-6 | 20 | 200 | 1.030075e-03 | 0.010301 | 0.511992 | 0.43938 | 5.2584e-02 |
| finetune_gpt2_lr2e-6 | 10 | 200 | 9.242424e-04 | 0.018485 | 0.522576 | 0.59268 | 7.0972e-02 |
| gpt2_scratch_neuro_tokenizer | 20 | 200 | 6.390977e-04 | 0.006391 | 0.561090 | 0.33818 | 1.4474e-01 |
| gpt2_scratch_neuro_tokenizer | 10 | 200 | 5.909091e-04 | 0.011818 | 0.565909 | 0.41705 | 2.3051e-01 |
| gpt2_scratch_neuro_tokenizer_spt | 20 | 200 | -8.270677e-05 | -0.000827 | 0.653271 | -0.04270 | 8.5814e-01 |
| gpt2_scratch_neuro_tokenizer_spt | 10 | 200 | -1.666667e-04 | -0.003333 | 0.661667 | -0.12654 | 7.2759e-01 |
| gpt2-medium_scratch_neuro_tokenizer | 20 | 200 | 1.887218e-03 | 0.018872 | 0.446278 | 0.52927 | 1.6407e-02 |
| gpt2-medium_scratch_neuro_tokenizer | 10 | 200 | 1.863636e-03 | 0.037273 | 0.448636 | 0.62839 | 5.1679e-02 |
| gpt2-medium_scratch_neuro_tokenizer_spt | 20 | 200 | 1.142857e-03 | 0.011429 | 0.545714 | 0.42188 | 6.3908e-02 |
| gpt2-medium_scratch_neuro_tokenizer_spt | 10 | 200 | 1.151515e-03 | 0.023030 | 0.544848 | 0.48766 | 1.5278e-01 |
| gpt2-large_scratch_neuro_tokenizer | 20 | 200 | 1.563910e-03 | 0.015639 | 0.563609 | 0.47138 | 3.5901e-02 |
| gpt2-large_scratch_neuro_tokenizer | 10 | 200 | 1.606061e-03 | 0.032121 | 0.559394 | 0.65901 | 3.8218e-02 |
| gpt2-medium | 20 | 200 | 1.375940e-03 | 0.013759 | 0.517406 | 0.39437 | 8.5315e-02 |
| gpt2-medium | 10 | 200 | 1.409091e-03 | 0.028182 | 0.514091 | 0.58380 | 7.6407e-02 |
| gpt2-large | 20 | 200 | 1.872180e-03 | 0.018722 | 0.507782 | 0.63975 | 2.3840e-03 |
| gpt2-large | 10 | 200 | 1.893939e-03 | 0.037879 | 0.505606 | 0.88175 | 7.3997e-04 |
"""

LOGISTIC_2_8_A = """
| gpt2_scratch_neuro_tokenizer | 0.044823 | 0.020899 | 0.414878 | 2.1447 | 4.9284e-02 | 0.115939 | 0.397832 | 0.117788 | 0.135582 | 0.8688 | 3.850e-01 |
| gpt2-medium_scratch_neuro_tokenizer | 0.598302 | 0.029909 | 0.227462 | 20.0044 | 1.8426e-05 | 0.768294 | 0.182865 | 0.847770 | 0.326092 | 2.5998 | 9.328e-03 |
| gpt2-large_scratch_neuro_tokenizer | 0.874104 | 0.094925 | 0.568663 | 9.2083 | 3.8637e-04 | 0.818939 | 0.630827 | 0.970953 | 0.441816 | 2.1976 | 2.797e-02 |
| Human experts | 0.012394 | 0.000648 | 0.043438 | 19.1117 | 2.2082e-05 | 0.012787 | 0.005665 | 0.012788 | 0.002434 | 5.2535 | 1.492e-07 |
"""

LOGISTIC_2_8_D = """
| gpt2_init | 0.000213 | 0.000032 | -0.482204 | 6.6054 | 1.3612e-03 | 0.000145 | -0.358457 | 0.000145 | 0.000138 | 1.0534 | 2.922e-01 |
| gpt2 | 0.250911 | 0.036328 | 0.146661 | 6.9069 | 1.1524e-03 | 0.267864 | 0.171751 | 0.283536 | 0.242395 | 1.1697 | 2.421e-01 |
| gpt2_scratch | 0.161467 | 0.035838 | 0.177986 | 4.5055 | 5.3887e-03 | 0.236036 | 0.187500 | 0.246698 | 0.210765 | 1.1705 | 2.418e-01 |
| finetune_gpt2 | 0.497537 | 0.077405 | 0.380117 | 6.4277 | 1.5062e-03 | 0.570804 | 0.371224 | 0.673010 | 0.424259 | 1.5863 | 1.127e-01 |
| finetune_gpt2_lr2e-6 | 0.207445 | 0.053719 | 0.364478 | 3.8616 | 9.0609e-03 | 0.233934 | 0.370831 | 0.254958 | 0.299493 | 0.8513 | 3.946e-01 |
| gpt2_scratch_neuro_tokenizer | 0.044823 | 0.020899 | 0.414878 | 2.1447 | 4.9284e-02 | 0.115939 | 0.397832 | 0.117788 | 0.135582 | 0.8688 | 3.850e-01 |
| gpt2_scratch_neuro_tokenizer_spt | -0.024382 | 0.024807 | 0.556144 | -0.9829 | 1.9066e-01 | 0.040321 | 0.557259 | 0.041035 | 0.135272 | 0.3033 | 7.616e-01 |
| gpt2-medium_scratch_neuro_tokenizer | 0.682211 | 0.052823 | 0.172114 | 12.9151 | 1.0365e-04 | 0.768294 | 0.182865 | 0.847770 | 0.326092 | 2.5998 | 9.328e-03 |
| gpt2-medium_scratch_neuro_tokenizer_spt | 0.454058 | 0.061663 | 0.388653 | 7.3635 | 9.0610e-04 | 0.543030 | 0.397089 | 0.596161 | 0.315338 | 1.8905 | 5.869e-02 |
| gpt2-large_scratch_neuro_tokenizer | 0.735359 | 0.015293 | 0.636226 | 48.0845 | 5.5957e-07 | 0.818939 | 0.630827 | 0.970953 | 0.441816 | 2.1976 | 2.797e-02 |
| gpt2-medium | 0.455656 | 0.046521 | 0.479705 | 9.7946 | 3.0450e-04 | 0.503166 | 0.458507 | 0.578344 | 0.389073 | 1.4865 | 1.372e-01 |
| gpt2-large | 0.791275 | 0.084198 | 0.570973 | 9.3978 | 3.5722e-04 | 0.913781 | 0.546297 | 1.158368 | 0.538193 | 2.1523 | 3.137e-02 |
"""

EXPERTS_2_9 = """
| gpt2_init | -0.098772 | 1.6407e-01 | -0.119562 | – | – |
| gpt2 | 0.112796 | 1.1178e-01 | 0.040416 | – | – |
| gpt2_scratch | 0.086087 | 2.2548e-01 | 0.107241 | – | – |
| finetune_gpt2 | 0.109900 | 1.2134e-01 | 0.102257 | – | – |
| finetune_gpt2_lr2e-6 | 0.088655 | 2.1190e-01 | 0.088827 | – | – |
| gpt2_scratch_neuro_tokenizer | 0.113246 | 1.1034e-01 | 0.092158 | – | – |
| gpt2_scratch_neuro_tokenizer_spt | 0.109809 | 1.2165e-01 | 0.082686 | – | – |
| gpt2-medium_scratch_neuro_tokenizer | 0.147386 | 3.7280e-02 | 0.107411 | – | – |
| gpt2-medium_scratch_neuro_tokenizer_spt | 0.140479 | 4.7248e-02 | 0.103740 | – | – |
| gpt2-large_scratch_neuro_tokenizer | 0.119833 | 9.0995e-02 | 0.107898 | – | – |
| gpt2-medium | 0.115747 | 1.0265e-01 | 0.111344 | – | – |
| gpt2-large | 0.187994 | 7.6810e-03 | 0.180669 | – | – |
"""

BETWEEN_2_9 = """
| gpt2_init |  |  |  |  |  |  |  |  |  |
| gpt2 | -0.0165 |  |  |  |  |  |  |  |  |
| gpt2_scratch | -0.0732 | 0.6294 |  |  |  |  |  |  |  |
| finetune_gpt2 | 0.0241 | 0.9169 | 0.6475 |  |  |  |  |  |  |
| gpt2_scratch_neuro_tokenizer | -0.0260 | 0.4642 | 0.6809 | 0.4757 |  |  |  |  |  |
| gpt2-medium_scratch_neuro_tokenizer | 0.0077 | 0.5678 | 0.6173 | 0.5783 | 0.7651 |  |  |  |  |
| gpt2-large_scratch_neuro_tokenizer | 0.0148 | 0.5651 | 0.5474 | 0.6035 | 0.6208 | 0.8397 |  |  |  |
| gpt2-medium | -0.0222 | 0.7986 | 0.6048 | 0.7930 | 0.4460 | 0.5344 | 0.5957 |  |  |
| gpt2-large | 0.0240 | 0.7065 | 0.6442 | 0.7404 | 0.4846 | 0.5344 | 0.5551 | 0.8208 |  |
"""

BOOST_2_10 = """
| gpt2 → finetune_gpt2 | .5750→.6350 | 26.439514→17.896060 | 31.8611 | 4.38e-80 | 2.2529 | 1.1252 | 0.2389 (.811) |
| gpt2 → finetune lr2e-6 | .5750→.6150 | 26.439514→22.446389 | 27.3926 | 1.92e-69 | 1.9369 | 0.4874 | 0.0245 (.980) |
| gpt2_scratch → neuro124 | .5800→.6250 | 34.844590→59.797069 | −27.0211 | 1.64e-68 | −1.9107 | 1.3119 | 1.9383 (.0540) |
"""

ZLIB_2_13 = """
| gpt2 | BrainBench human, correct option (prompt included) | 200 | 200 | 26.4395 | 24.9115 | 789.860 | 806.0 | 32.7973 | 246.8849 | 0.1131 |
| finetune_gpt2 | BrainBench human, correct option (prompt included) | 200 | 200 | 17.8961 | 17.2734 | 789.860 | 806.0 | 48.9155 | 282.4424 | 0.0873 |
| gpt2_scratch_neuro_tokenizer | BrainBench human, correct option (prompt included) | 200 | 200 | 59.7971 | 56.2232 | 789.860 | 806.0 | 14.9996 | 197.5317 | 0.1794 |
"""

# reading the blocks

def rows(block):
    "Split a block into rows of cells."
    return [[c.strip() for c in line.strip('| ').split('|')] for line in block.strip().splitlines()]


def agrees(measured, written):
    "Say whether a number rounds to the digits that are written."
    written = written.replace('−', '-')
    digits, exponent = re.fullmatch(r'([+-]?\d*\.?\d*)(?:e([+-]\d+))?', written).groups()
    unit = 10. ** (int(exponent or 0) - len(digits.partition('.')[2]))
    return abs(measured - float(written)) <= 0.5 * unit * (1 + 1e-6) + 1e-15


def check(measured, written):
    "Compare a row of numbers with a row of cells and say which differ."
    measured = [float(m) for m in measured]
    assert len(measured) == len(written)
    wrong = [(m, w) for m, w in zip(measured, written) if not agrees(m, w)]
    assert not wrong, wrong


by_id = lambda block: dict(argvalues=rows(block), ids=[' '.join(r[:2]) for r in rows(block)])
published = lru_cache(ex.published_scores)
MAKERS = dict(human='human', machine='gpt4')
FIELDS = [
    'Behavioral/Cognitive',
    'Systems/Circuits',
    'Neurobiology of Disease',
    'Cellular/Molecular',
    'Development/Plasticity/Repair',
]


@pytest.fixture(scope='module')
def answers(): return ex.load_participants()


def line_of(rows): return Line('', int(rows.correct.sum()), len(rows))


def test_the_check_notices_a_wrong_last_digit():
    assert (
        agrees(0.12345, '0.1235')
        and agrees(-0.5, '−.5')
        and agrees(1.4474e-1, '1.4474e-01')
        and agrees(3, '3')
    )
    assert (
        not agrees(0.12356, '0.1235') and not agrees(1.4476e-1, '1.4474e-01') and not agrees(4, '3')
    )
    assert not agrees(float('nan'), '1')


# 2.1 accuracies

@pytest.mark.parametrize('row', **by_id(MODELS_2_1))
def test_accuracy_of_the_models(row):
    s = published(row[0])
    line, a, b = line_of(s.frame), s.frame.original, s.frame.altered
    check(
        [
            line.k,
            line.accuracy,
            line.se,
            a.mean(),
            a.median(),
            b.mean(),
            (b - a).mean(),
            a.sum() + b.sum(),
        ],
        row[1:],
    )


@pytest.mark.parametrize('model,p', [('gpt2', '.0400'), ('gpt2_scratch', '.0281'),
                                     ('gpt2_scratch_neuro_tokenizer', '4.99e-4'), ('finetune_gpt2', '1.64e-4'),
                                     ('gpt2-large_scratch_neuro_tokenizer', '4.0e-10'), ('gpt2_init', '.289')])
def test_exact_binomial_against_guessing(model, p):
    correct = published(model).correct
    # a coin per case: the same exact test
    check([flip_test(np.where(correct, 1, -1))], [p])


@pytest.mark.parametrize('model,counts', [('gpt2', (2, 4, 12, 50)), ('gpt2_scratch', (4, 10, 13, 57)),
                                          ('finetune_gpt2', (1, 8, 14, 48)), ('gpt2_scratch_neuro_tokenizer',
                                              (0, 5, 11, 52)),
                                          ('gpt2-medium_scratch_neuro_tokenizer', (2, 7, 10, 52)),
                                          ('gpt2-large_scratch_neuro_tokenizer', (1, 3, 7, 45))])
def test_cases_that_hang_on_a_hair(model, counts):
    margin = abs(ex.difficulty([published(model)])[model])
    assert tuple(int((margin < limit).sum()) for limit in (1e-4, 5e-4, 1e-3, 5e-3)) == counts


@pytest.fixture(scope='module')
def sizes():
    "Count the scored tokens of both versions with both vocabularies, and the bytes of the originals."
    from domain_llm.tokens.tokenizer import load_tokenizer
    table = pd.read_csv(named_file('BrainBench_Human_v0.1.csv'))
    found = dict(
        bytes=np.array([len((PROMPT + t).strip().encode()) for t in table.original_abstract])
    )
    for name in 'gpt2', 'neuro':
        tokenizer = load_tokenizer(Path(DATA) / 'tokenizers' / name)
        found[name] = [
            np.array([len(tokenizer.encode((PROMPT + t).strip()).ids) - 1 for t in table[c]])
            for c in ('original_abstract', 'incorrect_abstract')
        ]
    return found


@pytest.mark.parametrize('model,accuracy,bits', [
    ('gpt2', '.5500', '0.9050'), ('gpt2_scratch', '.5400', '0.9722'), ('finetune_gpt2', '.6200', '0.7936'),
    ('finetune_gpt2_lr2e-6', '.6000', '0.8588'),
    ('gpt2_scratch_neuro_tokenizer', '.6100', '1.0001'), ('gpt2-medium_scratch_neuro_tokenizer', '.6450', '0.8263'),
    ('gpt2-large_scratch_neuro_tokenizer', '.7300', '0.7323'),
    ('gpt2_scratch_neuro_tokenizer_spt', '.6200', '1.0004'),
    ('gpt2-medium_scratch_neuro_tokenizer_spt', '.6500', '0.8247'), ('gpt2-medium', '.6250', '0.8153'),
    ('gpt2-large', '.6400', '0.7812')])
def test_summed_choice_and_bits_per_byte(sizes, model, accuracy, bits):
    a, b = sizes['neuro' if 'neuro' in model else 'gpt2']
    frame = published(model).frame
    nats = np.log(frame.original) * a, np.log(frame.altered) * b
    check(
        [(nats[0] < nats[1]).mean(), nats[0].sum() / np.log(2) / sizes['bytes'].sum()],
        [accuracy, bits],
    )


# 2.3 isolated sentences

@pytest.mark.parametrize('row', **by_id(ISOLATED_2_3))
def test_isolated_sentences(row):
    s = published(row[0], isolated=True)
    line, f = line_of(s.frame), s.frame.assign(margin=np.log(s.frame.altered / s.frame.original))
    each = f.groupby('abstract').agg(share=('correct', 'mean'), margin=('margin', 'mean'))
    k, n = map(int, row[5].split('/'))
    assert (line.k, line.n, int((f.original == f.altered).sum()), len(each)) == (k, n, 0, 200)
    check([n, 0, published(row[0]).accuracy], row[2:5])
    check(
        [
            line.accuracy,
            line.se,
            each.share.mean(),
            (each.share > 0.5).mean(),
            (each.share == 1).mean(),
            (each.margin > 0).mean(),
        ],
        row[6:],
    )


def test_sentences_lie_in_the_subfield_of_their_abstract():
    whole, parts = (
        published('gpt2_scratch_neuro_tokenizer', isolated=i).frame for i in (False, True)
    )
    assert (whole.set_index('id').section[parts.abstract].to_numpy() == parts.section).all()
    assert parts.abstract.value_counts().value_counts().sort_index().tolist() == [
        45,
        77,
        41,
        24,
        8,
        5,
    ]


# 2.5 humans

HUMANS_2_5 = {
    'human': [
        '641',
        '1011',
        '0.634026',
        '0.015150',
        '86',
        '130',
        '0.661538',
        '0.041501',
        '267',
        '0.726592',
        '0.631054',
        '0.633138',
        '0.015452',
        '0.677500',
        '27.4421',
        '43.8536',
        '0.163384',
        '1.75e-07',
        '0.093820',
        '2.83e-03',
    ],
    'gpt4': [
        '351',
        '503',
        '0.697813',
        '0.020475',
        '47',
        '61',
        '0.770492',
        '0.053842',
        '140',
        '0.735714',
        '0.706599',
        '0.698039',
        '0.020625',
        '0.780000',
        '27.3042',
        '46.7078',
        '0.169629',
        '1.32e-04',
        '0.011203',
        '.802',
    ],
}


@pytest.mark.parametrize('maker', HUMANS_2_5)
def test_humans(answers, maker):
    rows_ = answers[answers.maker == maker]
    line, top, upper = (
        ex.human_accuracy(answers, maker),
        ex.human_accuracy(ex.top_experts(answers, published=True), maker),
        ex.human_accuracy(ex.top_experts(answers), maker),
    )
    case, person = rows_.groupby('case').correct.mean(), rows_.groupby('participant').correct.mean()
    vote = np.where(case > .5, 1, np.where(case < .5, 0, .5)).mean()
    trust, skill = (stats.spearmanr(rows_[c], rows_.correct) for c in ('confidence', 'expertise'))
    check(
        [
            line.k,
            line.n,
            line.accuracy,
            line.se,
            top.k,
            top.n,
            top.accuracy,
            top.se,
            upper.n,
            upper.accuracy,
            case.mean(),
            person.mean(),
            stats.sem(person),
            vote,
            rows_.expertise.mean(),
            rows_.confidence.mean(),
            *trust,
            *skill,
        ],
        HUMANS_2_5[maker],
    )


@pytest.mark.parametrize('maker,empty,kept,all_ties,last', [('human', 70, 142, '0.683099', (130, '0.692308')),
                                                            ('gpt4', 39, 63, '0.777778', (61, '0.770492'))])
def test_what_the_published_rule_for_top_experts_does(answers, maker, empty, kept, all_ties, last):
    rows_ = answers[answers.maker == maker]
    assert int((rows_.groupby('case').size() < 5).sum()) == empty
    assert rows_.case.nunique() - ex.top_experts(rows_, published=True).case.nunique() == empty
    ties = pd.concat(
        [g.nlargest(int(0.2 * len(g)), 'expertise', keep='all') for _, g in rows_.groupby('case')]
    )
    assert len(ties) == kept
    end = ex.human_accuracy(ex.top_experts(rows_[::-1], published=True), maker)
    check([ties.correct.mean(), end.n, end.accuracy], [all_ties, str(last[0]), last[1]])


def test_who_answered_how_much(answers):
    assert answers.participant.value_counts().value_counts().to_dict() == {
        9: 154,
        8: 14,
        7: 2,
        2: 1,
    }
    for maker, least, most, mean in ('human', 1, 9, '5.055'), ('gpt4', 2, 9, '5.03'):
        trials = answers[answers.maker == maker].case.value_counts()
        assert (trials.min(), trials.max()) == (least, most)
        check([trials.mean()], [mean])
    raw = pd.read_csv(Path(DATA) / 'brainbench' / 'participant_data.csv')
    assert len(raw) == 1514 and not raw.recognised.any()
    people = raw.drop_duplicates('pid')
    check(
        [
            len(people),
            people.age.mean(),
            people.age.std(),
            people.experience.mean(),
            people.country.nunique(),
        ],
        ['171', '35.152', '9.398', '10.096', '22'],
    )
    assert sorted(people.sex.value_counts()) == [1, 4, 59, 107]
    for maker, n, accuracy, time in ('human', 692, '0.644509', '73155'), ('machine', 347, '0.714697', '81920'):
        mine = raw[raw.journal_section.str.startswith(maker)]
        stayed = mine[mine.click_outside.isna()]
        assert len(stayed) == n
        check([stayed.correct.mean(), mine.rt.median()], [accuracy, time])


@pytest.mark.parametrize('row', **by_id(SUBFIELDS_2_5))
def test_humans_by_subfield(answers, row):
    field = answers[(answers.maker == MAKERS[row[0]]) & (answers.section == row[1])]
    line, top = ex.accuracy_by(field, 'section').iloc[0], line_of(ex.top_experts(field))
    check(
        [
            line.n,
            line.correct,
            line.accuracy,
            line.se,
            field.expertise.quantile(0.8),
            top.n,
            top.accuracy,
            top.se,
            field.expertise.mean(),
        ],
        row[2:],
    )


@pytest.mark.parametrize('row', **by_id(POSITIONS_2_5))
def test_humans_by_position(answers, row):
    mine = answers[answers.position.str.startswith(row[0])]
    if not len(mine): mine = answers[answers.position == row[0]]
    check([len(mine), len(mine) / len(answers), mine.participant.nunique()], row[1:4])
    for maker, (count, *numbers) in (('human', row[4:7]), ('gpt4', row[7:10])):
        line = ex.accuracy_by(mine[mine.maker == maker], 'position').iloc[0]
        assert f'{line.correct}/{line.n}' == count
        check([line.accuracy, line.se], numbers)


@pytest.mark.parametrize('row', **by_id(EXPERTISE_2_5))
def test_humans_by_expertise(answers, row):
    mine = answers[(answers.maker == MAKERS[row[0]]) & ((answers.section == row[1]) | (row[1] == 'Overall'))]
    fit, bins = (
        ex.calibration_slope(mine.expertise, mine.correct, 4),
        ex.rank_bins(mine.expertise, mine.correct, 4)[1],
    )
    check([len(mine), *bins, fit.slope, fit.rvalue, fit.pvalue], row[2:])


# 2.6 models by subfield

@pytest.mark.parametrize('row', **by_id(SUBFIELDS_2_6))
def test_models_by_subfield(row):
    table = ex.accuracy_by(published(row[0]).frame, 'section').set_index('section')
    assert [int(n) for n in table.n[FIELDS]] == [75, 51, 25, 25, 24]
    check(table.accuracy[FIELDS], row[1:])


# 2.7 calibration by bins

def pair_of(who, answers):
    "Find confidence and correctness of a model or of the experts."
    if not who.startswith('Human'): return abs(published(who).margin), published(who).correct
    mine = answers[answers.maker == ('gpt4' if 'GPT-4' in who else 'human')]
    return mine.confidence.to_numpy(float), mine.correct.to_numpy()


@pytest.mark.parametrize('row', **by_id(BINS_2_7))
def test_calibration_by_bins(answers, row):
    confidence, correct = pair_of(row[0], answers)
    fit, n, bins = ex.calibration_slope(confidence, correct, int(row[1])), len(correct), int(row[1])
    check(
        [bins, n, fit.slope, fit.slope * n / bins, fit.intercept, fit.rvalue, fit.pvalue], row[1:]
    )


# 2.8 calibration by logistic regression

PAPERS_ORDER = [r[0] for r in rows(LOGISTIC_2_8_A)]


@pytest.mark.parametrize('row', **by_id(LOGISTIC_2_8_D + LOGISTIC_2_8_A.strip().splitlines()[-1]))
def test_logistic_maximum_likelihood(answers, row):
    fit = ex.logistic(*pair_of(row[0], answers))
    check([fit.slope, fit.error, fit.z, fit.p], row[8:])


@pytest.mark.parametrize('row', **by_id(LOGISTIC_2_8_D + LOGISTIC_2_8_A.strip().splitlines()[-1]))
def test_logistic_ridge(answers, row):
    LogisticRegression = pytest.importorskip('sklearn.linear_model').LogisticRegression
    confidence, correct = pair_of(row[0], answers)
    as_published = LogisticRegression(random_state=42).fit(confidence[:, None], correct)
    # where the solver stopped
    check([as_published.coef_[0, 0], as_published.intercept_[0]], row[6:8])
    ours, exact = ex.logistic(confidence, correct, ridge=1), LogisticRegression(tol=1e-10,
        max_iter=10000).fit(confidence[:, None], correct)
    # where the optimum is
    assert np.allclose(
        [ours.slope, ours.intercept], [exact.coef_[0, 0], exact.intercept_[0]], atol=2e-6
    )
    assert abs(ours.slope - float(row[6])) < .004 * abs(ours.slope)


def sklearn_draws(LogisticRegression, pairs):
    "Run the published five draws with the published fit."
    rng, found = np.random.RandomState(42), []
    for confidence, correct in pairs:
        draws = [rng.choice(len(correct), int(.8 * len(correct)), replace=False) for _ in range(5)]
        fits = [
            LogisticRegression(random_state=42).fit(confidence[i][:, None], correct[i])
            for i in draws
        ]
        slopes = [f.coef_[0, 0] for f in fits]
        t, p = stats.ttest_1samp(slopes, 0)
        found.append(
            [np.mean(slopes), stats.sem(slopes), np.mean([f.intercept_[0] for f in fits]), t, p / 2]
        )
    return found


@pytest.mark.parametrize('block', [LOGISTIC_2_8_A] + [f'\n{line}\n' for line in LOGISTIC_2_8_D.strip().splitlines()],
                         ids=['the four of the paper'] + [r[0] for r in rows(LOGISTIC_2_8_D)])
def test_logistic_five_draws(answers, block):
    LogisticRegression = pytest.importorskip('sklearn.linear_model').LogisticRegression
    names = [r[0] for r in rows(block)]
    pairs = [pair_of(n, answers) for n in names]
    for row, found in zip(rows(block), sklearn_draws(LogisticRegression, pairs)):
        check(found, row[1:6])
    ours = ex.logistic_draws(dict(zip(names, pairs)))
    for row, found in zip(rows(block), ours.itertuples()):
        assert abs(found.slope - float(row[1])) < .01 * abs(found.slope)
        assert abs(found.t - float(row[4])) < .02 * abs(found.t)
        assert abs(found.p - float(row[5])) < .1 * found.p and found.se > 0


# 2.9 error correlation

@pytest.mark.parametrize('row', **by_id(EXPERTS_2_9))
def test_error_correlation_with_experts(answers, row):
    s = published(row[0])
    (whole,), (binary,) = (ex.expert_correlation(ex.difficulty([s], answers, how=h)).itertuples()
                           for h in ('published', 'correct'))
    check([whole.rho, whole.p, binary.rho], row[1:4])


def test_error_correlation_between_models():
    names = [r[0] for r in rows(BETWEEN_2_9)]
    matrix = ex.error_correlation(ex.difficulty([published(n) for n in names], how='published'))
    for i, row in enumerate(rows(BETWEEN_2_9)):
        cells = [c for c in row[1:] if c]
        assert len(cells) == i
        check(matrix.iloc[i, :i], cells)


# 2.10 finetuning boost

NAMES = {'finetune lr2e-6': 'finetune_gpt2_lr2e-6', 'neuro124': 'gpt2_scratch_neuro_tokenizer'}


@pytest.mark.parametrize('row', **by_id(BOOST_2_10))
def test_finetuning_boost(row):
    before, after = (published(NAMES.get(n, n)) for n in row[0].split(' → '))
    boost = ex.finetuning_boost(before, after)
    check([before.accuracy, after.accuracy], row[1].split('→'))
    check([before.frame.original.mean(), after.frame.original.mean()], row[2].split('→'))
    t_choice, p_choice = row[7].rstrip(')').split(' (')
    check([boost[k] for k in ('t', 'p', 'd_paired', 'd_pooled', 't_choice', 'p_choice')],
          [*row[3:7], t_choice, p_choice])


# 2.13 zlib and perplexity, as far as the arrays are published

@pytest.fixture(scope='module')
def originals(): return pd.read_csv(named_file('BrainBench_Human_v0.1.csv'))


@pytest.mark.parametrize('row', **by_id(ZLIB_2_13))
def test_zlib_and_perplexity(originals, row):
    s = published(row[0])
    found = ex.zlib_table(s, originals.original_abstract)
    sizes = [len(zlib.compress((PROMPT + t).strip().encode())) for t in originals.original_abstract]
    check([found['n'], len(set(zip(s.frame.original, sizes))), *list(found.values())[1:]], row[2:])


def test_zlib_as_a_classifier(originals):
    a, b = (np.array([len(zlib.compress((PROMPT + t).strip().encode())) for t in originals[c]])
            for c in ('original_abstract', 'incorrect_abstract'))
    plain = ex.zlib_table(published('gpt2'), originals.original_abstract, prompt='')
    check([(a < b).mean(), (a == b).mean(), plain['mean_zlib']], ['0.445', '.17', '734.38'])


# the GPT-4-made cases: only people answered them in the published data

def test_case_numbers_are_matched_by_doi(answers):
    lines = (Path(DATA) / 'brainbench' / 'abstract_id_doi.csv').read_text(encoding='utf-8',
        errors='replace').splitlines()[1:]
    doi_of = {number: doi for doi, number, *_ in (line.split(';') for line in lines)}
    own = pd.read_csv(named_file('BrainBench_GPT-4_v0.1.csv')).doi
    found = ex.case_ids('gpt4')
    assert len(found) == 100 and sorted(found.values(), key=int) == [str(i + 1) for i in range(100)]
    assert all(doi_of[number] == own[int(i) - 1] for number, i in found.items())
    assert ex.case_ids('human') == {str(i): str(i) for i in range(1, 201)}
    assert set(answers.case[answers.maker == 'gpt4']) == set(found)
