# Leaves a line each time it runs, then waits until there is a file `go` below the minion's root_dir: for what happens during a
# run. Where that directory is gone nobody waits for it any more.
count:
  cmd.run:
    - name: echo run >> {{ opts['root_dir'] }}/runs.out
gate:
  cmd.run:
    - name: until [ -e {{ opts['root_dir'] }}/go ] || [ ! -e {{ opts['root_dir'] }}/runs.out ]; do sleep 0.1; done
    - require:
      - cmd: count
