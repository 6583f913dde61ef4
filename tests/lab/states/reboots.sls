# Reboots the machine as often as pillar `reboots` says, and holds at last: for runs that a state of theirs cuts off.
{% set count = opts['root_dir'] + '/reboots' %}
reboot:
  cmd.run:
    - name: echo once >>{{ count }}; systemctl --no-block reboot; sleep 100
    - unless: test "$(cat {{ count }} 2>/dev/null | wc -l)" -ge {{ salt['pillar.get']('reboots', 1) }}
at last:
  cmd.run:
    - name: echo run >>{{ opts['root_dir'] }}/runs.out
    - require:
      - cmd: reboot
