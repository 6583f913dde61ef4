# Leaves a line each time it runs, then takes pillar `sleep` seconds: for counting runs, and what happens during one.
count:
  cmd.run:
    - name: echo run >> {{ opts['root_dir'] }}/runs.out
linger:
  module.run:
    - test.sleep:
      - length: {{ salt['pillar.get']('sleep', 0) }}
    - require:
      - cmd: count
