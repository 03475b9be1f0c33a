"""Run as `python -m autograd_tui`."""

from autograd_tui.cli import main

raise SystemExit(main())
