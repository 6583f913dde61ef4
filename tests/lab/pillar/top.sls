# A minion called pillarbad-something has a pillar that cannot be made.
base:
  '*': [common]
  'pillarbad*': [no_such_pillar]
