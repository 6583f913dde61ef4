# Leaves a line each time it runs, then takes as many seconds as the minion's option `lab_sleep` says: for counting
# runs, and for what happens during one.
count:
  cmd.run:
    - name: echo run >> {{ opts['root_dir'] }}/runs.out
linger:
  module.run:
    - test.sleep:
      - length: {{ opts.get('lab_sleep', 0) }}
    - require:
      - cmd: count
