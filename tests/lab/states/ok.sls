# Holds: leaves a file that shows which minion and which pillar it was applied with.
write_ok:
  file.managed:
    - name: {{ opts['root_dir'] }}/ok.out
    - contents: "hello {{ grains['id'] }} {{ salt['pillar.get']('who', 'nobody') }}"
nothing:
  test.nop: []
