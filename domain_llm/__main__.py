"""Lets `python -m domain_llm` and `torchrun -m domain_llm` run the command line; the one module no notebook exports."""
from domain_llm.app.cli import main

main()
