# One state that holds, one that fails and one that fails because of it.
fine:
  test.succeed_without_changes: []
bad:
  test.fail_with_changes:
    - comment: the database is not there
after_bad:
  test.nop:
    - require:
      - test: bad
