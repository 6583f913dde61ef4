# No state comes of this file.
{% if false %}
never:
  test.nop
{% endif %}
