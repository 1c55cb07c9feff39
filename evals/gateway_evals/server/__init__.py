"""The app `evals`: suites and runs over HTTP, beside a gateway. Knows the harness as its command line does; no Ray."""
