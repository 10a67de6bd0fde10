"""An OpenAI-compatible fine-tuning service whose jobs run through `antibody.finetune`.

The rooms, each of which imports only those above it:

- `wire`: what goes over the network; `policy`: what the provider decided.
- `storage`: tables, migrations, blobs, and the queries on them, all of which name a project.
- `jobs`: the state machine, leases, the worker process, training; `chat`: the process that answers, and its client.
- `api`: routes, keys, limits.
- `serve`, `keys`: what the command line calls.
"""
