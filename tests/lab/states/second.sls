# Holds, so that two SLS files can be asked for at once.
second_one:
  test.succeed_with_changes: []
second_two:
  test.succeed_without_changes: []
