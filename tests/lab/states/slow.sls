# Holds after pillar `sleep` seconds: for what happens while a job runs.
sleepy:
  module.run:
    - test.sleep:
      - length: {{ salt['pillar.get']('sleep', 20) }}
