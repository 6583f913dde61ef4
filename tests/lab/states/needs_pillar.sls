# Renders only when the call carries the pillar `who`.
greet:
  test.show_notification:
    - text: "hello {{ pillar['who'] }}"
