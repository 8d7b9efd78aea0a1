"""`python -m agent`: the command line without the script that pip installs."""

from agent.cli import main

main()
